package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"carob.dev/carob/internal/agent/downward"
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
		return v.configMap(ctx, pod.Namespace, s.Name, s.Items, s.DefaultMode, s.Optional)
	case vol.Secret != nil:
		s := vol.Secret
		return v.secret(ctx, pod.Namespace, s.SecretName, s.Items, s.DefaultMode, s.Optional)
	case vol.DownwardAPI != nil:
		return v.downward(pod, vol.DownwardAPI.Items, vol.DownwardAPI.DefaultMode)
	default:
		return v.projected(ctx, pod, state, vol.Projected)
	}
}

func (v *Volumes) configMap(ctx context.Context, ns, name string, items []corev1.KeyToPath, mode *int32, optional *bool) (payload, error) {
	cm, err := v.cfg.Sources.GetConfigMap(ctx, ns, name)
	if apierrors.IsNotFound(err) && optional != nil && *optional {
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
	return pick(data, items, mode, optional, "configmap references non-existent config key: %s")
}

func (v *Volumes) secret(ctx context.Context, ns, name string, items []corev1.KeyToPath, mode *int32, optional *bool) (payload, error) {
	secret, err := v.cfg.Sources.GetSecret(ctx, ns, name)
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		secret, err = &corev1.Secret{}, nil
	}
	if err != nil {
		return nil, asMessage(err, "secret", name)
	}
	return pick(secret.Data, items, mode, optional, "references non-existent secret key: %s")
}

// asMessage names a missing object in the singular, as kubelet's events do; the API server itself says the plural.
func asMessage(err error, singular, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(corev1.Resource(singular), name)
	}
	return err
}

// pick lays keys out as files: all of them under their own names, or those of items.
func pick(data map[string][]byte, items []corev1.KeyToPath, mode *int32, optional *bool, missing string) (payload, error) {
	if mode == nil {
		return nil, errNoMode
	}
	out := payload{}
	if len(items) == 0 {
		for k, d := range data {
			out[k] = file{data: d, mode: *mode}
		}
		return out, nil
	}
	for _, item := range items {
		d, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return nil, fmt.Errorf(missing, item.Key)
		}
		f := file{data: d, mode: *mode}
		if item.Mode != nil {
			f.mode = *item.Mode
		}
		out[item.Path] = f
	}
	return out, nil
}

func (v *Volumes) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32) (payload, error) {
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
		f := file{mode: *mode}
		if item.Mode != nil {
			f.mode = *item.Mode
		}
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

func (v *Volumes) projected(ctx context.Context, pod *corev1.Pod, state *podVolumes, src *corev1.ProjectedVolumeSource) (payload, error) {
	if src.DefaultMode == nil {
		return nil, errNoMode
	}
	out := payload{}
	var errs []error
	for _, s := range src.Sources {
		var part payload
		var err error
		switch {
		case s.Secret != nil:
			part, err = v.secret(ctx, pod.Namespace, s.Secret.Name, s.Secret.Items, src.DefaultMode, s.Secret.Optional)
		case s.ConfigMap != nil:
			part, err = v.configMap(ctx, pod.Namespace, s.ConfigMap.Name, s.ConfigMap.Items, src.DefaultMode, s.ConfigMap.Optional)
		case s.DownwardAPI != nil:
			part, err = v.downward(pod, s.DownwardAPI.Items, src.DefaultMode)
		case s.ServiceAccountToken != nil:
			part, err = v.token(ctx, pod, state, s.ServiceAccountToken, *src.DefaultMode)
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

// tokenKey tells the tokens of one Pod apart.
type tokenKey struct {
	audience string
	seconds  int64
}

// token asks for a token, or gives the one it has until a fifth of its life is left or it is a day old.
func (v *Volumes) token(ctx context.Context, pod *corev1.Pod, state *podVolumes, src *corev1.ServiceAccountTokenProjection, mode int32) (payload, error) {
	if v.cfg.Token == nil {
		return nil, errors.New("service account tokens are not available")
	}
	key := tokenKey{audience: src.Audience, seconds: 3600}
	if src.ExpirationSeconds != nil {
		key.seconds = *src.ExpirationSeconds
	}
	tok := state.tokens[key]
	if tok == nil || !v.cfg.Clock.Now().Before(refreshAt(tok.ExpirationTimestamp.Time, key.seconds)) {
		spec := authenticationv1.TokenRequestSpec{
			ExpirationSeconds: &key.seconds,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}
		if src.Audience != "" {
			spec.Audiences = []string{src.Audience}
		}
		fresh, err := v.cfg.Token(ctx, pod, spec)
		switch {
		case err == nil:
			tok = fresh
			state.tokens[key] = tok
		case tok == nil || !v.cfg.Clock.Now().Before(tok.ExpirationTimestamp.Time):
			return nil, fmt.Errorf("failed to fetch token: %w", err)
		default:
			v.cfg.Log.Warn("renewing a service account token failed; the Pod keeps the old one", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		}
	}
	f := file{data: []byte(tok.Token), mode: mode, user: commonUser(pod)}
	if f.user != nil || fsGroup(pod) != nil {
		f.mode = 0o600
	}
	return payload{src.Path: f}, nil
}

func refreshAt(expires time.Time, seconds int64) time.Time {
	life := time.Duration(seconds) * time.Second
	at := expires.Add(-life / 5)
	if day := expires.Add(-life).Add(24 * time.Hour); day.Before(at) {
		return day
	}
	return at
}

// commonUser is the user that all containers of the Pod run as, if the Pod says so and they are one.
func commonUser(pod *corev1.Pod) *int64 {
	var user *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			var u *int64
			if pod.Spec.SecurityContext != nil {
				u = pod.Spec.SecurityContext.RunAsUser
			}
			if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
				u = c.SecurityContext.RunAsUser
			}
			if u == nil || user != nil && *user != *u {
				return nil
			}
			user = u
		}
	}
	return user
}
