module kaito.sh/hack/pause

go 1.26.0
