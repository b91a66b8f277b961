package serviceaccount

import (
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestSync(t *testing.T) {
	now := metav1.Now()
	going := corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}
	tests := []struct {
		name string
		ns   *corev1.Namespace
		want bool
	}{
		{"active", &corev1.Namespace{}, true},
		{"terminating", &corev1.Namespace{Status: going}, false},
		{"deleted", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}, false},
		{"gone", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := fake.NewClientset()
			factory := informers.NewSharedInformerFactory(client, 0)
			c, err := New(Config{Client: client, Informers: factory, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			if tt.ns != nil {
				tt.ns.Name = "ns"
				if err := factory.Core().V1().Namespaces().Informer().GetIndexer().Add(tt.ns); err != nil {
					t.Fatal(err)
				}
			}
			// Twice: the second time the cache is behind and the account exists.
			for range 2 {
				if err := c.sync(t.Context(), "ns"); err != nil {
					t.Fatal(err)
				}
			}
			_, err = client.CoreV1().ServiceAccounts("ns").Get(t.Context(), "default", metav1.GetOptions{})
			if got := !apierrors.IsNotFound(err); got != tt.want {
				t.Errorf("account is there: %t (%v)", got, err)
			}
		})
	}
}
