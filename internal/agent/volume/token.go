package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// tokenKey tells the tokens of one Pod apart.
type tokenKey struct {
	audience string
	seconds  int64
}

// token asks for a token as a file of the volume in, or gives the one it has until a fifth of its life is left or it is a day old.
func (v *Volumes) token(ctx context.Context, pod *corev1.Pod, state *podVolumes, src *corev1.ServiceAccountTokenProjection, in *corev1.ProjectedVolumeSource) (payload, error) {
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
	return payload{src.Path: secretFile(pod, in, src.User, []byte(tok.Token))}, nil
}

// RefreshAt is when Update wants to be called because of time alone: a token is to be renewed, or a driver looks at a volume; false for never.
func (v *Volumes) RefreshAt(uid types.UID) (at time.Time, ok bool) {
	v.mu.Lock()
	state := v.pods[uid]
	v.mu.Unlock()
	if state == nil {
		return time.Time{}, false
	}
	state.mu.Lock()
	defer state.mu.Unlock()
	for key, tok := range state.tokens {
		if t := refreshAt(tok.ExpirationTimestamp.Time, key.seconds); !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if v.cfg.Certificates != nil {
		if t, wanted := v.cfg.Certificates.RefreshAt(uid); wanted && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	if v.cfg.CSI != nil {
		if t, wanted := v.cfg.CSI.LookAt(uid); wanted && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	return at, ok
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
