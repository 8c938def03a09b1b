// Package etcd pins the real etcd that tests run against.
package etcd

import _ "go.etcd.io/etcd/server/v3/etcdmain"
