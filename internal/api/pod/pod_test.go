package pod

import (
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// valid is a Pod that uses much of what is supported.
const valid = `
metadata: {name: p, namespace: d, labels: {app: a, v: "1"}}
spec:
  serviceAccountName: default
  volumes:
  - {name: e, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: h, hostPath: {path: /var/tmp., type: ""}}
  - {name: s, secret: {secretName: s, items: [{key: k, path: a/b}]}}
  - {name: t, projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: kube-root-ca.crt}}]}}
  initContainers:
  - {name: i, image: busybox}
  - {name: side, image: busybox, restartPolicy: Always, livenessProbe: {exec: {command: [x]}}}
  containers:
  - name: a
    image: nginx:1.8
    ports: [{name: http, containerPort: 80, hostPort: 8080}]
    env: [{name: A, value: b}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    resources: {limits: {cpu: 1, memory: 1Gi}}
    volumeMounts: [{name: e, mountPath: /e}, {name: h, mountPath: /h, subPath: x}]
    readinessProbe: {httpGet: {port: http}}
    lifecycle: {preStop: {sleep: {seconds: 5}}}
  - {name: b, image: debian, command: [/bin/sh]}
`

func read(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// created is the valid Pod, changed, as the API would have it before validation.
func created(t *testing.T, change func(p *corev1.Pod)) *corev1.Pod {
	t.Helper()
	p := read(t, valid)
	if change != nil {
		change(p)
	}
	Default(p)
	PrepareForCreate(p)
	return p
}

func lines(errs field.ErrorList) []string {
	out := []string{}
	for _, e := range errs {
		first, _, _ := strings.Cut(e.Error(), "\n")
		out = append(out, first)
	}
	sort.Strings(out)
	return out
}

func TestDefault(t *testing.T) {
	p := read(t, `
metadata: {name: p, namespace: d}
spec:
  hostNetwork: true
  serviceAccount: sa
  volumes:
  - {name: none}
  - {name: h, hostPath: {path: /x}}
  - {name: d, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: t, projected: {sources: [{serviceAccountToken: {path: t}}]}}
  containers:
  - name: a
    image: nginx
    ports: [{containerPort: 80}]
    resources: {limits: {cpu: 0.5m}, requests: {memory: 1Gi}}
    livenessProbe: {httpGet: {port: 80}}
    startupProbe: {grpc: {port: 1}}
    env: [{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
`)
	Default(p)
	want := read(t, `
metadata: {name: p, namespace: d}
spec:
  hostNetwork: true
  serviceAccount: sa
  serviceAccountName: sa
  dnsPolicy: ClusterFirst
  restartPolicy: Always
  schedulerName: default-scheduler
  securityContext: {}
  terminationGracePeriodSeconds: 30
  enableServiceLinks: true
  volumes:
  - {name: none, emptyDir: {}}
  - {name: h, hostPath: {path: /x, type: ""}}
  - {name: d, downwardAPI: {defaultMode: 420, items: [{path: l, fieldRef: {apiVersion: v1, fieldPath: metadata.labels}}]}}
  - {name: t, projected: {defaultMode: 420, sources: [{serviceAccountToken: {path: t, expirationSeconds: 3600}}]}}
  containers:
  - name: a
    image: nginx
    imagePullPolicy: Always
    terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: File
    ports: [{containerPort: 80, hostPort: 80, protocol: TCP}]
    resources: {limits: {cpu: 1m}, requests: {cpu: 1m, memory: 1Gi}}
    livenessProbe: {httpGet: {path: /, port: 80, scheme: HTTP}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3}
    startupProbe: {grpc: {port: 1, service: ""}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3}
    env: [{name: N, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}]
`)
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	again := p.DeepCopy()
	Default(again)
	if diff := cmp.Diff(p, again); diff != "" {
		t.Errorf("defaults of defaults:\n%s", diff)
	}
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"nginx":                     corev1.PullAlways,
		"nginx:latest":              corev1.PullAlways,
		"reg.io:5000/nginx":         corev1.PullAlways,
		"nginx:1.8":                 corev1.PullIfNotPresent,
		"reg.io:5000/nginx:1.8":     corev1.PullIfNotPresent,
		"Not An Image":              corev1.PullIfNotPresent,
		"nginx@sha256:" + hex64:     corev1.PullIfNotPresent,
		"nginx:1.8@sha256:" + hex64: corev1.PullIfNotPresent,
	} {
		if got := PullPolicy(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

const hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestQOS(t *testing.T) {
	for _, tc := range []struct {
		name, spec string
		want       corev1.PodQOSClass
	}{
		{"nothing", `containers: [{name: a}]`, corev1.PodQOSBestEffort},
		{"limits of both", `containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]`, corev1.PodQOSGuaranteed},
		{"cpu only", `containers: [{name: a, resources: {limits: {cpu: 1}}}]`, corev1.PodQOSBurstable},
		{"lower request", `containers: [{name: a, resources: {limits: {cpu: 2, memory: 1Gi}, requests: {cpu: 1}}}]`, corev1.PodQOSBurstable},
		{"zero is nothing", `containers: [{name: a, resources: {requests: {cpu: 0}}}]`, corev1.PodQOSBestEffort},
		{"one of two", `containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}, {name: b}]`, corev1.PodQOSBurstable},
		{"init counts", `{initContainers: [{name: i}], containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]}`, corev1.PodQOSBurstable},
		{"other resources do not count", `containers: [{name: a, resources: {limits: {ephemeral-storage: 1Gi}}}]`, corev1.PodQOSBestEffort},
	} {
		p := &corev1.Pod{}
		if err := yaml.UnmarshalStrict([]byte(tc.spec), &p.Spec); err != nil {
			t.Fatal(err)
		}
		Default(p)
		if got := QOS(p); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}
