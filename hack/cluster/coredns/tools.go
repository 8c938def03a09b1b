//go:build tools

// Package coredns pins the DNS server of the real node.
package coredns

import _ "github.com/coredns/coredns"
