package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

const (
	readNamespace = "default"
	ownWrites     = 500
)

// runReads measures reads of the cache as fast as one goroutine can, and reads right after a write.
func runReads(kubeconfig string, asked options) {
	created := newManager(kubeconfig, asked, nil)
	_, err := created.GetCache().GetInformer(context.Background(), &corev1.ConfigMap{})
	fail(err)
	fail(created.Add(manager.RunnableFunc(func(ctx context.Context) error {
		reader := created.GetClient()
		var all corev1.ConfigMapList
		fail(reader.List(ctx, &all))
		get := pace(asked.seconds, func(number int) {
			var object corev1.ConfigMap
			name := all.Items[number*7919%len(all.Items)].Name
			fail(reader.Get(ctx, client.ObjectKey{Namespace: readNamespace, Name: name}, &object))
		})
		list := pace(asked.seconds, func(int) {
			var found corev1.ConfigMapList
			fail(reader.List(ctx, &found, client.InNamespace(readNamespace), client.MatchingLabels{"group": "listed"}))
			if len(found.Items) != asked.listed {
				panic(fmt.Sprintf("%d objects listed, not %d", len(found.Items), asked.listed))
			}
		})
		say("result", figures{"get": get, "list": list, "own": own(ctx, reader)})
		return nil
	})))
	start(created, nil, nil)
}

// own reads right after each of its writes, and looks whether it sees it, and when.
func own(ctx context.Context, api client.Client) figures {
	stale := 0
	var writing, reading []float64
	for number := range ownWrites {
		key := client.ObjectKey{Namespace: readNamespace, Name: fmt.Sprintf("c%05d", number%50)}
		var target corev1.ConfigMap
		fail(api.Get(ctx, key, &target))
		started := time.Now()
		wanted := started.String()
		changed := target.DeepCopy()
		changed.Data["own"] = wanted
		fail(api.Patch(ctx, changed, client.MergeFrom(&target)))
		written := time.Now()
		var found corev1.ConfigMap
		fail(api.Get(ctx, key, &found))
		if found.Data["own"] != wanted {
			stale++
		}
		for found.Data["own"] != wanted {
			time.Sleep(50 * time.Microsecond)
			fail(api.Get(ctx, key, &found))
		}
		reading = append(reading, time.Since(written).Seconds())
		writing = append(writing, written.Sub(started).Seconds())
	}
	return figures{"writes": ownWrites, "stale": stale, "write_seconds": writing, "visible_seconds": reading}
}

// pace is how often a second, and at what CPU time, the work can be done one after the other.
func pace(seconds float64, work func(int)) figures {
	started, cpu, count := time.Now(), cpuSeconds(), 0
	for time.Since(started).Seconds() < seconds {
		work(count)
		count++
	}
	wall := time.Since(started).Seconds()
	return figures{"per_second": float64(count) / wall, "cpu_us": (cpuSeconds() - cpu) / float64(count) * 1e6}
}

// cpuSeconds is what all threads of the process have used, garbage collection included.
func cpuSeconds() float64 {
	var used syscall.Rusage
	fail(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}
