package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/metadata"
	metafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

// newClient is a fake API server that makes names and uids, and keeps spec and status apart.
func newClient(objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset(objects...)
	var serial atomic.Int64
	client.PrependReactor("create", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		obj := a.(clienttesting.CreateAction).GetObject()
		o, ok := obj.(metav1.Object)
		if !ok || a.GetSubresource() != "" {
			return false, nil, nil
		}
		n := serial.Add(1)
		if o.GetName() == "" {
			o.SetName(fmt.Sprintf("%s%05d", o.GetGenerateName(), n))
		}
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", n)))
		o.SetCreationTimestamp(metav1.NewTime(time.Unix(1_900_000_000+n, 0)))
		if err := client.Tracker().Create(a.GetResource(), obj, a.GetNamespace()); err != nil {
			return true, nil, err
		}
		return true, obj, nil
	})
	// Each write has a resourceVersion of its own, and a status update writes no spec.
	client.PrependReactor("update", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		o := a.(clienttesting.UpdateAction).GetObject().DeepCopyObject()
		m := o.(metav1.Object)
		have, err := client.Tracker().Get(a.GetResource(), a.GetNamespace(), m.GetName())
		if err != nil {
			return true, nil, err
		}
		have = have.DeepCopyObject()
		m.SetUID(have.(metav1.Object).GetUID())
		m.SetCreationTimestamp(have.(metav1.Object).GetCreationTimestamp())
		switch now := o.(type) {
		case *appsv1.Deployment:
			if was := have.(*appsv1.Deployment); a.GetSubresource() == "status" {
				now.Spec = was.Spec
			} else {
				now.Status = was.Status
			}
		case *appsv1.ReplicaSet:
			if was := have.(*appsv1.ReplicaSet); a.GetSubresource() == "status" {
				now.Spec, now.Annotations, now.OwnerReferences = was.Spec, was.Annotations, was.OwnerReferences
			} else {
				now.Status = was.Status
			}
		}
		m.SetResourceVersion(fmt.Sprint(1000 + serial.Add(1)))
		return true, o, client.Tracker().Update(a.GetResource(), o, a.GetNamespace())
	})
	return client
}

type cluster struct {
	t      *testing.T
	client *fake.Clientset
}

// start runs all controllers.
func start(t *testing.T, objects ...runtime.Object) *cluster {
	t.Helper()
	client := newClient(objects...)
	scheme := metafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	meta := metafake.NewSimpleMetadataClient(scheme)
	factory := informers.NewSharedInformerFactory(client, 0)
	all, err := All(Config{
		ClientFor:   func(string) (kubernetes.Interface, error) { return client, nil },
		MetadataFor: func(string) (metadata.Interface, error) { return meta, nil },
		Discovery:   &fakediscovery.FakeDiscovery{Fake: &clienttesting.Fake{}},
		Informers:   factory,
		RecorderFor: func(string) record.EventRecorder { return &record.FakeRecorder{} },
		RootCA:      []byte("the authority"),
		Sign: func(*x509.CertificateRequest, []certificatesv1.KeyUsage, time.Duration) ([]byte, error) {
			return nil, errors.New("signs nothing")
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	factory.Start(ctx.Done())
	for _, r := range all {
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("%s: %v", r.Name(), err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		factory.Shutdown()
	})
	return &cluster{t: t, client: client}
}

func (c *cluster) eventually(what string, ok func(ctx context.Context) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok(c.t.Context()) {
			return
		}
	}
	c.t.Fatalf("does not come true: %s", what)
}

func web(replicas int32) *appsv1.Deployment {
	lbls := map[string]string{"app": "web"}
	surge, unavailable, deadline := intstr.FromString("25%"), intstr.FromString("25%"), int32(600)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "uid-web", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: lbls}, ProgressDeadlineSeconds: &deadline,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: lbls},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx"}}},
			},
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable},
			},
		},
	}
}

func (c *cluster) sets() []appsv1.ReplicaSet {
	list, err := c.client.AppsV1().ReplicaSets("ns").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

func TestDeploymentToPodsToEndpoints(t *testing.T) {
	c := start(t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}},
		&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "uid-svc"},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "web"}, ClusterIP: "10.43.0.9", ClusterIPs: []string{"10.43.0.9"},
				IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}},
			},
		}, web(3))
	c.eventually("default service account and root certificate", func(ctx context.Context) bool {
		_, err := c.client.CoreV1().ServiceAccounts("ns").Get(ctx, "default", metav1.GetOptions{})
		cm, err2 := c.client.CoreV1().ConfigMaps("ns").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err == nil && err2 == nil && cm.Data["ca.crt"] == "the authority"
	})
	var pods []corev1.Pod
	c.eventually("3 pods", func(ctx context.Context) bool {
		list, err := c.client.CoreV1().Pods("ns").List(ctx, metav1.ListOptions{})
		pods = list.Items
		return err == nil && len(pods) == 3
	})
	for i := range pods {
		p := &pods[i]
		p.Spec.NodeName = "n"
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.42.0.%d", i+2), PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.42.0.%d", i+2)}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}}
		if _, err := c.client.CoreV1().Pods("ns").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.eventually("the deployment is available", func(ctx context.Context) bool {
		d, err := c.client.AppsV1().Deployments("ns").Get(ctx, "web", metav1.GetOptions{})
		return err == nil && d.Status.AvailableReplicas == 3 && d.Status.UpdatedReplicas == 3 && d.Annotations["deployment.kubernetes.io/revision"] == "1"
	})
	c.eventually("3 endpoints", func(ctx context.Context) bool {
		list, err := c.client.DiscoveryV1().EndpointSlices("ns").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
		return err == nil && len(list.Items) == 1 && len(list.Items[0].Endpoints) == 3 && *list.Items[0].Ports[0].Port == 8080
	})
}

func TestHashCollision(t *testing.T) {
	d := web(1)
	c := start(t, d)
	var name string
	c.eventually("a replicaset", func(context.Context) bool {
		if s := c.sets(); len(s) == 1 {
			name = s[0].Name
		}
		return name != ""
	})
	// The same again, in a world where somebody else has that name.
	taken := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-stranger"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "stranger"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "stranger"}}},
	}}
	c = start(t, web(1), taken)
	c.eventually("another name and a collision count", func(ctx context.Context) bool {
		d, err := c.client.AppsV1().Deployments("ns").Get(ctx, "web", metav1.GetOptions{})
		return err == nil && d.Status.CollisionCount != nil && *d.Status.CollisionCount == 1 && len(c.sets()) == 2
	})
}

func TestDeploymentAdoptsOrphan(t *testing.T) {
	d := web(2)
	two := int32(2)
	lbls := map[string]string{"app": "web", "pod-template-hash": "abc"}
	orphan := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-abc", UID: "uid-orphan", Labels: lbls},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: lbls}, Template: *d.Spec.Template.DeepCopy()},
	}
	orphan.Spec.Template.Labels = lbls
	c := start(t, d, orphan)
	c.eventually("adopted and taken for the new one", func(context.Context) bool {
		s := c.sets()
		return len(s) == 1 && metav1.IsControlledBy(&s[0], d) && s[0].Annotations["deployment.kubernetes.io/revision"] == "1"
	})
	time.Sleep(50 * time.Millisecond)
	if s := c.sets(); len(s) != 1 {
		t.Errorf("%d replicasets", len(s))
	}
}
