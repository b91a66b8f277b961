package apiserver_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Each benchmark runs over TLS and in process; the difference is what the network and its protection cost.
func clients(b *testing.B, run func(b *testing.B, kube kubernetes.Interface)) {
	f := start(b)
	b.Run("tls", func(b *testing.B) { run(b, f.kube) })
	b.Run("inproc", func(b *testing.B) { run(b, f.own) })
}

func BenchmarkGet(b *testing.B) {
	clients(b, func(b *testing.B, kube kubernetes.Interface) {
		for b.Loop() {
			if _, err := kube.CoreV1().Namespaces().Get(b.Context(), "default", metav1.GetOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCreate16 has sixteen writers at a time; each create is on disk before it is answered.
func BenchmarkCreate16(b *testing.B) {
	var n atomic.Int64
	clients(b, func(b *testing.B, kube kubernetes.Interface) {
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c := configMap(fmt.Sprint("m", n.Add(1)), map[string]string{"k": "v"})
				if _, err := kube.CoreV1().ConfigMaps("default").Create(b.Context(), c, metav1.CreateOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkCreate1 has one writer, so each create waits for the disk alone.
func BenchmarkCreate1(b *testing.B) {
	var n atomic.Int64
	clients(b, func(b *testing.B, kube kubernetes.Interface) {
		for b.Loop() {
			c := configMap(fmt.Sprint("m", n.Add(1)), map[string]string{"k": "v"})
			if _, err := kube.CoreV1().ConfigMaps("default").Create(b.Context(), c, metav1.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkNodeAsks has a node with 200 Pods in one namespace read a secret that the last of them names, beside who need not be asked about.
func BenchmarkNodeAsks(b *testing.B) {
	f := start(b)
	ctx := b.Context()
	if _, err := f.kube.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "wanted"}}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	if _, err := f.kube.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	for i := range 200 {
		p := newPod(fmt.Sprintf("p%03d", i), func(p *corev1.Pod) { p.Spec.NodeName = "n1" })
		if i == 199 {
			p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "wanted"}}}}
		}
		if _, err := f.kube.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for name, kube := range map[string]kubernetes.Interface{
		"node":       kubernetes.NewForConfigOrDie(f.ClientConfig("system:node:n1", "system:nodes")),
		"controller": f.own,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := kube.CoreV1().Secrets("default").Get(ctx, "wanted", metav1.GetOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
