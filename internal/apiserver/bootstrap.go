package apiserver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	policy "carob.dev/carob/internal/apiserver/auth/bootstrap"
)

// bootstrap makes what every cluster has: its namespaces, its roles and the Service kubernetes, which leads to this server.
func (s *Server) bootstrap(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.generic.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	namespaces := []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}
	errs := make([]error, len(namespaces))
	var wg sync.WaitGroup
	for i, name := range namespaces {
		wg.Go(func() { errs[i] = ensureNamespace(ctx, client, name) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("API server: make the first namespaces: %w", err)
	}
	if err := policy.Default().Ensure(client); err != nil {
		return fmt.Errorf("API server: make the first roles: %w", err)
	}
	if err := s.policy.Start(ctx); err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	if err := s.ensureService(ctx, client); err != nil {
		return fmt.Errorf("API server: make the service kubernetes: %w", err)
	}
	s.keeping.Go(func() { s.keepService(ctx, client) })
	return nil
}

func ensureNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	api := client.CoreV1().Namespaces()
	_, err := api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
