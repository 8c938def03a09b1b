package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// runSync fills the cache, and keeps it.
func runSync(kubeconfig string, asked options) {
	var object client.Object = &corev1.ConfigMap{}
	if asked.metadata {
		partial := &metav1.PartialObjectMetadata{}
		partial.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
		object = partial
	}
	selector, err := labels.Parse(asked.labels)
	fail(err)
	created := newManager(kubeconfig, asked, func(chosen *ctrl.Options) {
		chosen.Cache.ByObject = map[client.Object]cache.ByObject{object: {Label: selector}}
	})
	informer, err := created.GetCache().GetInformer(context.Background(), object)
	fail(err)
	start(created, func() int {
		return len(informer.(toolscache.SharedIndexInformer).GetStore().ListKeys())
	}, nil)
}
