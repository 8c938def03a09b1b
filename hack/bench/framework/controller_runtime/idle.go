package main

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// runIdle has ten controllers with nothing to do, the lease, probes and metrics, as an operator is deployed.
func runIdle(kubeconfig string, asked options) {
	created := newManager(kubeconfig, asked, func(chosen *ctrl.Options) {
		chosen.Metrics.BindAddress = "127.0.0.1:0"
		chosen.HealthProbeBindAddress = "127.0.0.1:0"
		chosen.LeaderElection = true
		chosen.LeaderElectionID = "bench-controller-runtime"
		chosen.LeaderElectionNamespace = "default"
		chosen.Cache = cache.Options{}
	})
	nothing := reconcile.Func(func(context.Context, ctrl.Request) (ctrl.Result, error) { return ctrl.Result{}, nil })
	for _, kind := range []client.Object{
		&corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Service{}, &corev1.ServiceAccount{}, &corev1.Pod{},
		&corev1.PersistentVolumeClaim{}, &appsv1.Deployment{}, &appsv1.StatefulSet{}, &appsv1.DaemonSet{}, &batchv1.Job{},
	} {
		fail(ctrl.NewControllerManagedBy(created).For(kind).Complete(nothing))
	}
	start(created, nil, nil)
}
