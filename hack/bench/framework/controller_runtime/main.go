// The peer of the framework benchmark on controller-runtime: sets data.done to data.want with a merge patch, ten workers.
package main

import (
	"context"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

type copier struct{ client.Client }

func (c *copier) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
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

func fail(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	ctrl.SetLogger(zap.New())
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	fail(err)
	config.QPS = -1 // no client-side limit, as the other peers
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Metrics: server.Options{BindAddress: "0"},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}: {Label: labels.SelectorFromSet(labels.Set{"bench": "yes"})},
		}},
	})
	fail(err)
	fail(ctrl.NewControllerManagedBy(manager).
		For(&corev1.ConfigMap{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 10}).
		Complete(&copier{manager.GetClient()}))
	fail(manager.Start(ctrl.SetupSignalHandler()))
}
