package api

import (
	"context"
	"sort"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/yaml"
)

func kindOf(t *testing.T, group, name string) *Kind {
	t.Helper()
	for _, k := range Kinds() {
		if k.Group == group && k.Kind == name {
			return k
		}
	}
	t.Fatalf("no kind %s in group %q", name, group)
	return nil
}

func object(t *testing.T, k *Kind, text string) runtime.Object {
	t.Helper()
	obj := k.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	return obj
}

func messages(errs field.ErrorList) []string {
	out := []string{}
	for _, e := range errs {
		out = append(out, e.Error())
	}
	sort.Strings(out)
	return out
}

const (
	template   = `template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: nginx:1.8}]}}`
	deployment = `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}}, ` + template + `}}`
)

func TestCreate(t *testing.T) {
	for _, tc := range []struct {
		name, group, kind, object string
		want                      []string
	}{
		{"as it is", "apps", "Deployment", deployment, nil},
		{"another selector", "apps", "Deployment", `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: b}}, ` + template + `}}`,
			[]string{"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"}},
		{"no selector", "apps", "Deployment", `{metadata: {name: d, namespace: ns}, spec: {` + template + `}}`, []string{
			"spec.selector: Required value",
			"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
		}},
		{"a template that ends", "apps", "ReplicaSet", `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}},
			template: {metadata: {labels: {app: a}}, spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}`,
			[]string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
		{"neither surge nor unavailable", "apps", "Deployment", `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}},
			strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}, ` + template + `}}`,
			[]string{"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"}},
		{"more than all unavailable", "apps", "Deployment", `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}},
			strategy: {rollingUpdate: {maxUnavailable: 101%}}, ` + template + `}}`,
			[]string{`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{"rolling parameters of a Recreate", "apps", "Deployment", `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}},
			strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}, ` + template + `}}`,
			[]string{"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
		{"a deadline before ready", "apps", "Deployment", `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}},
			minReadySeconds: 10, progressDeadlineSeconds: 10, ` + template + `}}`,
			[]string{"spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds"}},
		{"a claim in a template", "apps", "Deployment", `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}},
			template: {metadata: {labels: {app: a}}, spec: {volumes: [{name: v, iscsi: {iqn: x}}], containers: [{name: c, image: x}]}}}}`,
			[]string{"spec.template.spec.volumes[0].iscsi: Forbidden: not supported by Carob: use a CSI driver, or log in to the target on the node and use a local volume"}},

		{"bad key", "", "ConfigMap", `{metadata: {name: c, namespace: ns}, data: {"a/b": x}, binaryData: {}}`, []string{
			`data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' ` +
				`(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')`,
		}},
		{"key twice", "", "ConfigMap", `{metadata: {name: c, namespace: ns}, data: {a: x}, binaryData: {a: aGk=}}`,
			[]string{`data[a]: Invalid value: "a": duplicate of key present in binaryData`}},
		{"TLS without key", "", "Secret", `{metadata: {name: c, namespace: ns}, type: kubernetes.io/tls, stringData: {tls.crt: x}}`,
			[]string{"data[tls.key]: Required value"}},
		{"registry config that is no JSON", "", "Secret", `{metadata: {name: c, namespace: ns}, type: kubernetes.io/dockerconfigjson,
			stringData: {.dockerconfigjson: "{"}}`,
			[]string{`data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": unexpected end of JSON input`}},

		{"service", "", "Service", `{metadata: {name: s, namespace: ns}, spec: {ports: [{port: 80}]}}`, nil},
		{"service without ports", "", "Service", `{metadata: {name: s, namespace: ns}}`, []string{"spec.ports: Required value"}},
		{"ports without names", "", "Service", `{metadata: {name: s, namespace: ns}, spec: {ports: [{port: 80}, {port: 80}]}}`, []string{
			"spec.ports[0].name: Required value", "spec.ports[1].name: Required value",
			`spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80,"targetPort":0}`,
		}},
		{"node port of a cluster address", "", "Service", `{metadata: {name: s, namespace: ns}, spec: {ports: [{port: 80, nodePort: 30000}]}}`,
			[]string{"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
		{"name without target", "", "Service", `{metadata: {name: s, namespace: ns}, spec: {type: ExternalName}}`,
			[]string{"spec.externalName: Required value"}},

		{"taints twice", "", "Node", `{metadata: {name: n1}, spec: {taints: [{key: a, effect: NoExecute}, {key: a, effect: NoExecute}]}}`,
			[]string{`metadata.taints[1]: Duplicate value: {"key":"a","effect":"NoExecute"}: taints must be unique by key and effect pair`}},
		{"name of a node with dots", "", "Node", `{metadata: {name: storage-k3sw2.m4d3bug.com}}`, nil},
		{"bad name", "", "Namespace", `{metadata: {name: a.b}}`, []string{`metadata.name: Invalid value: "a.b": must not contain dots`}},
		{"slice of the other family", "discovery.k8s.io", "EndpointSlice",
			`{metadata: {name: e, namespace: ns}, addressType: IPv4, endpoints: [{addresses: ["fd00::1"]}]}`,
			[]string{`endpoints[0].addresses: Invalid value: "fd00::1": must be an IPv4 address`}},
		{"loopback", "", "Endpoints", `{metadata: {name: e, namespace: ns}, subsets: [{addresses: [{ip: 127.0.0.1}]}]}`,
			[]string{`subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`}},
		{"revision without data", "apps", "ControllerRevision", `{metadata: {name: r, namespace: ns}}`, []string{"data: Required value: data is mandatory"}},
		{"lease for no time", "coordination.k8s.io", "Lease", `{metadata: {name: l, namespace: ns}, spec: {leaseDurationSeconds: 0}}`,
			[]string{"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"}},
		{"runtime class", "node.k8s.io", "RuntimeClass", `{metadata: {name: c}, handler: runc, overhead: {podFixed: {memory: 1Mi}},
			scheduling: {nodeSelector: {a: b}, tolerations: [{key: k, operator: Exists}]}}`, nil},
		{"runtime class of no handler", "node.k8s.io", "RuntimeClass", `{metadata: {name: c}, scheduling: {tolerations: [{key: k, operator: Exists,
			effect: NoExecute}, {key: k, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]}}`, []string{
			"handler: Required value",
			`scheduling.tolerations[1]: Duplicate value: {"key":"k","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}`,
		}},
		{"old event", "", "Event", `{metadata: {name: e, namespace: ns}, involvedObject: {namespace: ns}}`, nil},
		{"old event of elsewhere", "", "Event", `{metadata: {name: e, namespace: ns}, involvedObject: {namespace: m}}`,
			[]string{`involvedObject.namespace: Invalid value: "m": does not match event.namespace`}},
		{"new event without a reporter", "events.k8s.io", "Event", `{metadata: {name: e, namespace: ns}, involvedObject: {namespace: ns},
			eventTime: "2026-01-02T03:04:05.000000Z", type: Normal, reason: r, action: a, reportingComponent: c}`,
			[]string{"reportingInstance: Required value"}},
	} {
		t.Run(tc.kind+"/"+tc.name, func(t *testing.T) { checkCreate(t, tc.group, tc.kind, tc.object, tc.want) })
	}
}

func checkCreate(t *testing.T, group, kind, text string, want []string) {
	t.Helper()
	ctx := request.WithRequestInfo(context.Background(), &request.RequestInfo{APIGroup: group})
	k := kindOf(t, group, kind)
	obj := object(t, k, text)
	if k.PrepareForCreate != nil {
		k.PrepareForCreate(ctx, obj)
	}
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, messages(k.Validate(ctx, obj))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpdate(t *testing.T) {
	for _, tc := range []struct {
		name, group, kind, old, object string
		want                           []string
		generation                     int64 // of the old one: 1
	}{
		{"replicas", "apps", "Deployment", deployment,
			`{metadata: {name: d, namespace: ns}, spec: {replicas: 3, selector: {matchLabels: {app: a}}, ` + template + `}}`, nil, 2},
		{"annotations", "apps", "Deployment", deployment,
			`{metadata: {name: d, namespace: ns, annotations: {a: b}}, spec: {selector: {matchLabels: {app: a}}, ` + template + `}}`, nil, 2},
		{"status", "apps", "Deployment", deployment,
			`{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: a}}, ` + template + `}, status: {replicas: 5}}`, nil, 1},
		{"selector", "apps", "Deployment", deployment, `{metadata: {name: d, namespace: ns}, spec: {selector: {matchLabels: {app: b}},
			template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: nginx:1.8}]}}}}`,
			[]string{`spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable`}, 2},
		{"annotations of a ReplicaSet", "apps", "ReplicaSet", deployment,
			`{metadata: {name: d, namespace: ns, annotations: {a: b}}, spec: {selector: {matchLabels: {app: a}}, ` + template + `}}`, nil, 1},
		{"immutable data", "", "ConfigMap", `{metadata: {name: c, namespace: ns}, immutable: true, data: {a: b}}`,
			`{metadata: {name: c, namespace: ns}, data: {a: c}}`, []string{
				"data: Forbidden: field is immutable when `immutable` is set", "immutable: Forbidden: field is immutable when `immutable` is set",
			}, 1},
		{"type of a secret", "", "Secret", `{metadata: {name: c, namespace: ns}, type: a}`, `{metadata: {name: c, namespace: ns}, type: b}`,
			[]string{`type: Invalid value: "b": field is immutable`}, 1},
		{"cluster address", "", "Service", `{metadata: {name: s, namespace: ns}, spec: {clusterIP: 10.43.0.1, clusterIPs: [10.43.0.1], ports: [{port: 80}]}}`,
			`{metadata: {name: s, namespace: ns}, spec: {clusterIP: 10.43.0.2, clusterIPs: [10.43.0.2], ports: [{port: 80}]}}`,
			[]string{`spec.clusterIPs[0]: Invalid value: ["10.43.0.2"]: may not change once set`}, 1},
		{"no longer on nodes", "", "Service",
			`{metadata: {name: s, namespace: ns}, spec: {type: NodePort, clusterIP: 10.43.0.1, clusterIPs: [10.43.0.1], ports: [{port: 80, nodePort: 30000}]}}`,
			`{metadata: {name: s, namespace: ns}, spec: {clusterIP: 10.43.0.1, clusterIPs: [10.43.0.1], externalTrafficPolicy: Cluster,
				ports: [{port: 80, nodePort: 30000}]}}`, nil, 1},
		{"pod range", "", "Node", `{metadata: {name: n1}, spec: {podCIDR: 10.42.0.0/24}}`, `{metadata: {name: n1}, spec: {podCIDR: 10.42.1.0/24}}`,
			[]string{`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`}, 1},
		{"finalizers through the namespace itself", "", "Namespace", `{metadata: {name: n1}, spec: {finalizers: [kubernetes]}}`,
			`{metadata: {name: n1}}`, nil, 1},
		{"reason of an event", "events.k8s.io", "Event",
			`{metadata: {name: e, namespace: ns}, involvedObject: {namespace: ns}, reason: a}`, `{metadata: {name: e, namespace: ns}, involvedObject: {namespace: ns}, reason: b}`,
			[]string{`reason: Invalid value: "b": field is immutable`}, 1},
	} {
		t.Run(tc.kind+"/"+tc.name, func(t *testing.T) { checkUpdated(t, tc.group, tc.kind, tc.old, tc.object, tc.want, tc.generation) })
	}
}

// version gives objects that a server is to have stored before a version, and the generation 1.
func version(objs ...runtime.Object) {
	for _, o := range objs {
		o.(metav1.Object).SetResourceVersion("1")
		o.(metav1.Object).SetGeneration(1)
	}
}

func checkUpdated(t *testing.T, group, kind, before, after string, want []string, generation int64) {
	t.Helper()
	ctx := request.WithRequestInfo(context.Background(), &request.RequestInfo{APIGroup: group})
	k := kindOf(t, group, kind)
	old, obj := object(t, k, before), object(t, k, after)
	version(old, obj)
	if k.PrepareForUpdate != nil {
		k.PrepareForUpdate(ctx, obj, old)
	}
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, messages(k.ValidateUpdate(ctx, obj, old))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := obj.(metav1.Object).GetGeneration(); got != generation {
		t.Errorf("generation %d, want %d", got, generation)
	}
}

func TestNamespaceOnCreate(t *testing.T) {
	k := kindOf(t, "", "Namespace")
	n := object(t, k, `{metadata: {name: n1}, status: {phase: Terminating}}`).(*corev1.Namespace)
	k.PrepareForCreate(context.Background(), n)
	want := &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"kubernetes.io/metadata.name": "n1"}},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}},
		Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestScale(t *testing.T) {
	k := kindOf(t, "apps", "Deployment")
	obj := object(t, k, deployment)
	k.Scale.Set(obj, 7)
	spec, status, selector, err := k.Scale.Get(obj)
	if err != nil || spec != 7 || status != 0 || selector != "app=a" {
		t.Errorf("got %d, %d, %q, %v", spec, status, selector, err)
	}
}
