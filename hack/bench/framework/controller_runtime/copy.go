package main

import (
	"context"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
)

// copier sets data.done to data.want with a merge patch.
type copier struct {
	client.Client
	reconciles atomic.Int64
}

func (c *copier) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	c.reconciles.Add(1)
	var object corev1.ConfigMap
	if err := c.Get(ctx, request.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if object.Data["done"] == object.Data["want"] {
		return ctrl.Result{}, nil
	}
	changed := object.DeepCopy()
	changed.Data["done"] = object.Data["want"]
	return ctrl.Result{}, c.Patch(ctx, changed, client.MergeFrom(&object))
}

func runCopy(kubeconfig string, asked options) {
	created := newManager(kubeconfig, asked, nil)
	reconciler := &copier{Client: created.GetClient()}
	fail(ctrl.NewControllerManagedBy(created).
		For(&corev1.ConfigMap{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(reconciler))
	start(created, nil, func() figures { return figures{"reconciles": reconciler.reconciles.Load()} })
}
