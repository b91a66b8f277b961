package apiserver_test

import (
	"fmt"
	"sync/atomic"
	"testing"

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
