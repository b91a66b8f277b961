package static

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	podrule "carob.dev/carob/internal/api/pod"
)

// Annotations that tell where a Pod comes from.
const (
	AnnotationSource = "kubernetes.io/config.source"
	AnnotationHash   = "kubernetes.io/config.hash"
	AnnotationSeen   = "kubernetes.io/config.seen"
	AnnotationMirror = corev1.MirrorPodAnnotationKey
)

// The kinds of sources, as AnnotationSource has them.
const (
	File = "file"
	HTTP = "http"
)

// Is says whether the Pod is one that a node runs by itself, and not what the API shows of it.
func Is(pod *corev1.Pod) bool {
	source := pod.Annotations[AnnotationSource]
	return (source == File || source == HTTP) && !IsMirror(pod)
}

// IsMirror says whether the Pod is what the API shows of such a Pod.
func IsMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[AnnotationMirror]
	return ok
}

// Decode reads a manifest: one Pod, or a PodList. from is the file or URL, kind one of File and HTTP. A field that there is not, a Pod that the API
// would refuse, and a Pod that needs objects of the API are errors.
func Decode(ctx context.Context, raw []byte, kind, from, node string, now time.Time) ([]*corev1.Pod, error) {
	var what struct {
		APIVersion, Kind string
	}
	if len(strings.TrimSpace(string(raw))) == 0 {
		return nil, errors.New("it is empty")
	}
	if documents(raw) > 1 {
		return nil, errors.New("it holds more than one object; a PodList may hold several Pods")
	}
	if err := yaml.Unmarshal(raw, &what); err != nil {
		return nil, err
	}
	var list []corev1.Pod
	switch {
	case what.APIVersion != "v1":
		return nil, fmt.Errorf("its apiVersion is %q, not v1", what.APIVersion)
	case what.Kind == "Pod":
		list = make([]corev1.Pod, 1)
		if err := yaml.UnmarshalStrict(raw, &list[0]); err != nil {
			return nil, err
		}
	case what.Kind == "PodList":
		var pods corev1.PodList
		if err := yaml.UnmarshalStrict(raw, &pods); err != nil {
			return nil, err
		}
		list = pods.Items
	default:
		return nil, fmt.Errorf("its kind is %q, neither Pod nor PodList", what.Kind)
	}
	var out []*corev1.Pod
	for i := range list {
		if err := complete(ctx, &list[i], kind, from, node, now); err != nil {
			return nil, err
		}
		out = append(out, &list[i])
	}
	return out, nil
}

// documents counts those that are not empty.
func documents(raw []byte) int {
	n := 0
	for _, part := range strings.Split("\n"+string(raw), "\n---") {
		for line := range strings.Lines(part) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && line != "..." {
				n++
				break
			}
		}
	}
	return n
}

// complete gives the Pod what a Pod of the API has, and what tells that it is none.
func complete(ctx context.Context, pod *corev1.Pod, kind, from, node string, now time.Time) error {
	if pod.Name == "" {
		return errors.New("invalid pod: name is needed for the pod")
	}
	if what := reference(pod); what != "" {
		return fmt.Errorf("pod %s: static pods may not reference %s", pod.Name, what)
	}
	if pod.UID == "" {
		raw, err := json.Marshal(pod)
		if err != nil {
			return err
		}
		sum := sha256.New()
		fmt.Fprintf(sum, "%s\x00%s\x00%s\x00%s", kind, from, node, raw)
		pod.UID = types.UID(hex.EncodeToString(sum.Sum(nil)[:16]))
	}
	pod.TypeMeta.Kind, pod.TypeMeta.APIVersion = "", ""
	pod.Name += "-" + strings.ToLower(node)
	if pod.Namespace == "" {
		pod.Namespace = corev1.NamespaceDefault
	}
	pod.Spec.NodeName = node
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[AnnotationHash], pod.Annotations[AnnotationSource] = string(pod.UID), kind
	pod.Annotations[AnnotationSeen] = now.Format(time.RFC3339Nano)
	if kind == File {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	}
	podrule.Default(pod)
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	if errs := podrule.Validate(pod); len(errs) > 0 {
		return fmt.Errorf("invalid pod: %w", errs.ToAggregate())
	}
	return nil
}
