// The peer of the framework's benchmarks on controller-runtime: MODE KUBECONFIG [OPTIONS]. What it says and when is
// told in hack/bench/framework/peers.py; the modes are those of peer_ours.py, and queue, which needs no server.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const workers = 10

type options struct {
	labels   string
	metadata bool
	seconds  float64
	listed   int
}

type figures map[string]any

var modes = map[string]func(kubeconfig string, asked options){
	"copy":    runCopy,
	"sync":    runSync,
	"latency": runLatency,
	"idle":    runIdle,
	"reads":   runReads,
	"queue":   runQueue,
}

func main() {
	ctrl.SetLogger(zap.New())
	var asked options
	set := flag.NewFlagSet("peer", flag.ExitOnError)
	set.StringVar(&asked.labels, "labels", "bench=yes", "selector of the ConfigMaps")
	set.BoolVar(&asked.metadata, "metadata", false, "keep metadata only")
	set.Float64Var(&asked.seconds, "seconds", 3, "length of each measurement")
	set.IntVar(&asked.listed, "listed", 1000, "objects a list is to find")
	run, known := modes[os.Args[1]]
	if !known {
		panic("no mode " + os.Args[1])
	}
	fail(set.Parse(os.Args[3:]))
	run(os.Args[2], asked)
}

func fail(err error) {
	if err != nil {
		panic(err)
	}
}

// say is one line to the benchmark.
func say(event string, said figures) {
	line := figures{"event": event}
	maps.Copy(line, said)
	text, err := json.Marshal(line)
	fail(err)
	fmt.Println(string(text))
}

// newManager caches the asked ConfigMaps; nothing is served and there is no lease unless more says so.
func newManager(kubeconfig string, asked options, more func(*ctrl.Options)) manager.Manager {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	fail(err)
	config.QPS = -1 // no client-side limit, as the other peers
	selector, err := labels.Parse(asked.labels)
	fail(err)
	chosen := ctrl.Options{
		Metrics: server.Options{BindAddress: "0"},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}: {Label: selector},
		}},
	}
	if more != nil {
		more(&chosen)
	}
	created, err := ctrl.NewManager(config, chosen)
	fail(err)
	return created
}

// start runs the manager until SIGTERM, saying synced when its caches are full, and then its last figures.
func start(created manager.Manager, count func() int, last func() figures) {
	started := time.Now()
	fail(created.Add(manager.RunnableFunc(func(ctx context.Context) error {
		collectOnSignal()
		objects := 0
		if count != nil {
			objects = count()
		}
		say("synced", figures{"seconds": time.Since(started).Seconds(), "objects": objects})
		return nil
	})))
	fail(created.Start(ctrl.SetupSignalHandler()))
	if last == nil {
		say("end", nil)
	} else {
		say("end", last())
	}
}

// collectOnSignal collects garbage on SIGUSR1, gives freed memory back to the system, and says so.
func collectOnSignal() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			runtime.GC()
			debug.FreeOSMemory()
			say("collected", nil)
		}
	}()
}
