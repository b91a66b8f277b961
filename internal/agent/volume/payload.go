package volume

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"carob.dev/carob/internal/agent/downward"
	"carob.dev/carob/internal/agent/volume/certificate"
)

// file is one file of a projecting volume.
type file struct {
	data []byte
	mode int32
	// user owns the file; nil for root.
	user *int64
}

// payload is the files of a projecting volume by their path in it.
type payload map[string]file

type digest [sha256.Size]byte

func (p payload) digest() digest {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(p)) {
		f := p[path]
		user := int64(-1)
		if f.user != nil {
			user = *f.user
		}
		var head []byte
		for _, n := range []int64{int64(len(path)), int64(len(f.data)), int64(f.mode), user} {
			head = binary.LittleEndian.AppendUint64(head, uint64(n))
		}
		h.Write(head)
		h.Write([]byte(path))
		h.Write(f.data)
	}
	return digest(h.Sum(nil))
}

var errNoMode = errors.New("no defaultMode used, not even the default value for it")

// files gathers what vol should hold now.
func (v *Volumes) files(ctx context.Context, pod *corev1.Pod, state *podVolumes, vol *corev1.Volume) (payload, error) {
	switch {
	case vol.ConfigMap != nil:
		s := vol.ConfigMap
		return v.configMap(ctx, pod.Namespace, s.Name, selection{s.Items, s.Optional, s.DefaultMode, s.DefaultUser})
	case vol.Secret != nil:
		s := vol.Secret
		return v.secret(ctx, pod.Namespace, s.SecretName, selection{s.Items, s.Optional, s.DefaultMode, s.DefaultUser})
	case vol.DownwardAPI != nil:
		s := vol.DownwardAPI
		return v.downward(pod, s.Items, s.DefaultMode, s.DefaultUser)
	default:
		return v.projected(ctx, pod, state, vol.Name, vol.Projected)
	}
}

// selection says which keys of an object become files.
type selection struct {
	items    []corev1.KeyToPath
	optional *bool
	mode     *int32
	user     *int64
}

func (s selection) isOptional() bool { return s.optional != nil && *s.optional }

func (v *Volumes) configMap(ctx context.Context, ns, name string, sel selection) (payload, error) {
	cm, err := v.cfg.Sources.GetConfigMap(ctx, ns, name)
	if apierrors.IsNotFound(err) && sel.isOptional() {
		cm, err = &corev1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, asMessage(err, "configmap", name)
	}
	data := maps.Clone(cm.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, s := range cm.Data {
		data[k] = []byte(s)
	}
	return sel.pick(data, "configmap references non-existent config key: %s")
}

func (v *Volumes) secret(ctx context.Context, ns, name string, sel selection) (payload, error) {
	secret, err := v.cfg.Sources.GetSecret(ctx, ns, name)
	if apierrors.IsNotFound(err) && sel.isOptional() {
		secret, err = &corev1.Secret{}, nil
	}
	if err != nil {
		return nil, asMessage(err, "secret", name)
	}
	return sel.pick(secret.Data, "references non-existent secret key: %s")
}

// asMessage names a missing object in the singular, as kubelet's events do; the API server itself says the plural.
func asMessage(err error, singular, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(corev1.Resource(singular), name)
	}
	return err
}

// pick lays keys out as files: all of them under their own names, or those of the items.
func (s selection) pick(data map[string][]byte, missing string) (payload, error) {
	if s.mode == nil {
		return nil, errNoMode
	}
	out := payload{}
	if len(s.items) == 0 {
		for k, d := range data {
			out[k] = file{data: d, mode: *s.mode, user: s.user}
		}
		return out, nil
	}
	for _, item := range s.items {
		d, ok := data[item.Key]
		if !ok {
			if s.isOptional() {
				continue
			}
			return nil, fmt.Errorf(missing, item.Key)
		}
		out[item.Path] = file{data: d, mode: *cmp.Or(item.Mode, s.mode), user: cmp.Or(item.User, s.user)}
	}
	return out, nil
}

func (v *Volumes) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32, user *int64) (payload, error) {
	if mode == nil {
		return nil, errNoMode
	}
	var allocatable corev1.ResourceList
	if v.cfg.Allocatable != nil {
		allocatable = v.cfg.Allocatable()
	}
	out := payload{}
	var errs []error
	for _, item := range items {
		f := file{mode: *cmp.Or(item.Mode, mode), user: cmp.Or(item.User, user)}
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = downward.Metadata(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = downward.Resource(item.ResourceFieldRef, pod, item.ResourceFieldRef.ContainerName, allocatable)
		default:
			err = fmt.Errorf("item %s has neither fieldRef nor resourceFieldRef", item.Path)
		}
		errs = append(errs, err)
		f.data = []byte(value)
		out[filepath.Clean(item.Path)] = f
	}
	return out, errors.Join(errs...)
}

func (v *Volumes) projected(ctx context.Context, pod *corev1.Pod, state *podVolumes, name string, src *corev1.ProjectedVolumeSource) (payload, error) {
	if src.DefaultMode == nil {
		return nil, errNoMode
	}
	out := payload{}
	var errs []error
	for i, s := range src.Sources {
		var part payload
		var err error
		switch {
		case s.Secret != nil:
			part, err = v.secret(ctx, pod.Namespace, s.Secret.Name, selection{s.Secret.Items, s.Secret.Optional, src.DefaultMode, src.DefaultUser})
		case s.ConfigMap != nil:
			part, err = v.configMap(ctx, pod.Namespace, s.ConfigMap.Name, selection{s.ConfigMap.Items, s.ConfigMap.Optional, src.DefaultMode, src.DefaultUser})
		case s.DownwardAPI != nil:
			part, err = v.downward(pod, s.DownwardAPI.Items, src.DefaultMode, src.DefaultUser)
		case s.ServiceAccountToken != nil:
			part, err = v.token(ctx, pod, state, s.ServiceAccountToken, src)
		case s.ClusterTrustBundle != nil && v.cfg.Bundles != nil:
			var anchors []byte
			anchors, err = v.cfg.Bundles.Anchors(ctx, s.ClusterTrustBundle)
			part = payload{s.ClusterTrustBundle.Path: secretFile(pod, src, s.ClusterTrustBundle.User, anchors)}
		case s.PodCertificate != nil && v.cfg.Certificates != nil:
			part, err = v.certificate(ctx, pod, certificate.Source{Volume: name, Index: i}, src, s.PodCertificate)
		default:
			err = errors.New("this kind of projected source is not supported")
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		maps.Copy(out, part)
	}
	return out, errors.Join(errs...)
}

// secretFile is a file for one user, if it is known whom the Pod runs as: then nobody else may read it.
func secretFile(pod *corev1.Pod, src *corev1.ProjectedVolumeSource, user *int64, data []byte) file {
	f := file{data: data, mode: *src.DefaultMode, user: cmp.Or(user, src.DefaultUser, commonUser(pod))}
	if f.user != nil || fsGroup(pod) != nil {
		f.mode = 0o600
	}
	return f
}

// certificate is a key and the certificates for it, in the files that the Pod wants.
func (v *Volumes) certificate(ctx context.Context, pod *corev1.Pod, at certificate.Source, src *corev1.ProjectedVolumeSource, want *corev1.PodCertificateProjection) (payload, error) {
	key, chain, err := v.cfg.Certificates.Get(ctx, pod, at, want)
	if err != nil {
		return nil, err
	}
	out := payload{}
	for path, data := range map[string][]byte{want.CredentialBundlePath: slices.Concat(key, chain), want.KeyPath: key, want.CertificateChainPath: chain} {
		if path != "" {
			out[path] = secretFile(pod, src, want.User, data)
		}
	}
	return out, nil
}
