// Package certificate gives Pods what they trust and what they are trusted by: the anchors of ClusterTrustBundles, and keys with certificates
// that a signer issues for them (PodCertificateRequests).
//
// It imports client-go. Invariants: nothing is watched before some Pod asks; a private key never leaves the node and is never written but into
// its Pod's volume.
package certificate

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"
)

// Bundles are the cluster's trust bundles, watched from the first time that a Pod asks for one.
type Bundles struct {
	ctx     context.Context
	client  kubernetes.Interface
	changed func()

	once   sync.Once
	lister listers.ClusterTrustBundleLister
	synced cache.InformerSynced
}

// NewBundles returns Bundles whose watch ends with ctx. changed is called, from any goroutine, whenever a bundle has changed.
func NewBundles(ctx context.Context, client kubernetes.Interface, changed func()) *Bundles {
	return &Bundles{ctx: ctx, client: client, changed: changed}
}

func (b *Bundles) start() {
	factory := informers.NewSharedInformerFactory(b.client, 0)
	all := factory.Certificates().V1().ClusterTrustBundles()
	b.lister, b.synced = all.Lister(), all.Informer().HasSynced
	all.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { b.changed() }, UpdateFunc: func(any, any) { b.changed() },
		DeleteFunc: func(any) { b.changed() }})
	factory.StartWithContext(b.ctx)
}

// Anchors are the certificates that a source names, in PEM, each once and in a fixed order. A missing optional bundle has none.
func (b *Bundles) Anchors(ctx context.Context, src *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	b.once.Do(b.start)
	if !cache.WaitForCacheSync(ctx.Done(), b.synced) {
		return nil, errors.New("ClusterTrustBundle informer has not yet synced")
	}
	optional := src.Optional != nil && *src.Optional
	if src.Name != nil {
		one, err := b.lister.Get(*src.Name)
		if apierrors.IsNotFound(err) && optional {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("while getting ClusterTrustBundle: %w", err)
		}
		return anchors(one), nil
	}
	if src.SignerName == nil {
		return nil, errors.New("ClusterTrustBundle projection requires either name or signerName to be set")
	}
	selector, err := metav1.LabelSelectorAsSelector(src.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("while parsing label selector: %w", err)
	}
	list, err := b.lister.List(selector)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c *certificatesv1.ClusterTrustBundle) bool { return c.Spec.SignerName != *src.SignerName })
	if len(list) == 0 && !optional {
		return nil, errors.New("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	return anchors(list...), nil
}

func anchors(bundles ...*certificatesv1.ClusterTrustBundle) []byte {
	found := map[string]bool{}
	for _, b := range bundles {
		eachBlock([]byte(b.Spec.TrustBundle), func(der []byte) { found[string(der)] = true })
	}
	var out []byte
	for _, der := range slices.Sorted(maps.Keys(found)) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)})...)
	}
	return out
}

// eachBlock calls f with the content of every PEM block; what stands between them and in their headers is dropped.
func eachBlock(raw []byte, f func(der []byte)) {
	for {
		block, rest := pem.Decode(raw)
		if block == nil {
			return
		}
		f(block.Bytes)
		raw = rest
	}
}
