package rootca

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestPublishesAndMends(t *testing.T) {
	client := fake.NewClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "wrong"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "wrong", Name: configMap}, Data: map[string]string{dataKey: "forged", "more": "x"}},
	)
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Informers: factory, RootCA: []byte("pem"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	data := func(ns string) map[string]string {
		cm, err := client.CoreV1().ConfigMaps(ns).Get(t.Context(), configMap, metav1.GetOptions{})
		if err != nil {
			return nil
		}
		return cm.Data
	}
	want := map[string]string{dataKey: "pem"}
	for deadline := time.Now().Add(5 * time.Second); !cmp.Equal(want, data("new")) || !cmp.Equal(want, data("wrong")); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("new %v, wrong %v", data("new"), data("wrong"))
		}
	}
	if data("going") != nil {
		t.Error("published in a namespace that goes")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	factory.Shutdown()
}
