package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	batch     = 1000
	seeded    = 1_000_000
	consumers = 1000
	hold      = time.Millisecond
)

// runQueue does what the priority queue's own benchmarks do (pkg/controller/priorityqueue/priorityqueue_test.go), with
// the keys a controller has: BenchmarkAddGetDone, BenchmarkAddOnly, BenchmarkAddLockContended.
func runQueue(_ string, asked options) {
	keys := make([]reconcile.Request, seeded)
	for i := range keys {
		keys[i] = reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: fmt.Sprintf("c%07d", i)}}
	}
	say("result", figures{
		"add_get_done": addGetDone(asked.seconds, keys[:batch]),
		"add_only":     addOnly(asked.seconds, keys[:batch]),
		"contended":    contended(asked.seconds, keys),
	})
}

func addGetDone(seconds float64, keys []reconcile.Request) figures {
	queue := priorityqueue.New[reconcile.Request]("")
	defer queue.ShutDown()
	return perKey(len(keys), pace(seconds, func(int) {
		for _, key := range keys {
			queue.Add(key)
		}
		for range keys {
			item, _ := queue.Get()
			queue.Done(item)
		}
	}))
}

func addOnly(seconds float64, keys []reconcile.Request) figures {
	queue := priorityqueue.New[reconcile.Request]("")
	defer queue.ShutDown()
	return perKey(len(keys), pace(seconds, func(int) {
		for _, key := range keys {
			queue.Add(key)
		}
	}))
}

// contended adds while a thousand consumers take keys, hold each for a millisecond and give it back; the wall time of
// the adds, and what the consumers got done meanwhile.
func contended(seconds float64, keys []reconcile.Request) figures {
	queue := priorityqueue.New[reconcile.Request]("")
	defer queue.ShutDown()
	for _, key := range keys {
		queue.Add(key)
	}
	queue.Len() // adds are buffered; this lets them in
	var done atomic.Int64
	for range consumers {
		go func() {
			for {
				item, shutdown := queue.Get()
				if shutdown {
					return
				}
				time.Sleep(hold)
				queue.Done(item)
				done.Add(1)
			}
		}()
	}
	started, before := time.Now(), done.Load()
	result := perKey(batch, pace(seconds, func(int) {
		for _, key := range keys[:batch] {
			queue.Add(key)
		}
	}))
	result["consumed_per_second"] = float64(done.Load()-before) / time.Since(started).Seconds()
	return result
}

func perKey(count int, paced figures) figures {
	return figures{
		"per_second": paced["per_second"].(float64) * float64(count),
		"cpu_us":     paced["cpu_us"].(float64) / float64(count),
	}
}
