package main

import (
	"context"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
)

// looker keeps the time from the sending of each change to the start of its reconcile.
type looker struct {
	client.Client
	lock        sync.Mutex
	last        map[string]string
	nanoseconds []int64
}

func (l *looker) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var object corev1.ConfigMap
	if err := l.Get(ctx, request.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	sent := object.Data["sent"]
	var now unix.Timespec
	fail(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)) // the clock that all processes of a machine share
	l.lock.Lock()
	defer l.lock.Unlock()
	if sent == "" || l.last[object.Name] == sent {
		return ctrl.Result{}, nil
	}
	l.last[object.Name] = sent
	nanoseconds, err := strconv.ParseInt(sent, 10, 64)
	fail(err)
	l.nanoseconds = append(l.nanoseconds, now.Nano()-nanoseconds)
	return ctrl.Result{}, nil
}

func runLatency(kubeconfig string, asked options) {
	created := newManager(kubeconfig, asked, nil)
	reconciler := &looker{Client: created.GetClient(), last: map[string]string{}}
	fail(ctrl.NewControllerManagedBy(created).
		For(&corev1.ConfigMap{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(reconciler))
	start(created, nil, func() figures { return figures{"nanoseconds": reconciler.nanoseconds} })
}
