//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestEnv tries where a variable can come from, and the rules of $(VAR).
func TestEnv(t *testing.T) {
	s := newSpace(t)
	s.kubectl("create", "configmap", "cm", "--from-literal=KEY=from-cm", "--from-literal=OTHER=x y")
	s.kubectl("create", "secret", "generic", "sec", "--from-literal=PASSWORD=p$$w")
	s.apply(podOf("web", "terminationGracePeriodSeconds: 1", "containers:", container("main", "echo args: $@; "+forever, `args: ["zero", "$(PLAIN)", "$$(PLAIN)", "$(NOBODY)", "$(JOINED)"]
envFrom:
- configMapRef: {name: cm}
- {prefix: P_, secretRef: {name: sec}}
- {configMapRef: {name: none, optional: true}}
env:
- {name: PLAIN, value: plain}
- {name: JOINED, value: "$(PLAIN)-$(KEY)-$(LATER)-$$(PLAIN)"}
- {name: LATER, value: later}
- {name: EMPTY}
- {name: ONE, valueFrom: {configMapKeyRef: {name: cm, key: KEY}}}
- {name: SECRET, valueFrom: {secretKeyRef: {name: sec, key: PASSWORD}}}
- {name: MAYBE, valueFrom: {configMapKeyRef: {name: cm, key: none, optional: true}}}
- {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['run']"}}}
- {name: SA, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
- {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
- {name: MEM, valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}}
resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 100m, memory: 32Mi}}`)))
	p := s.ready("web")
	env := "\n" + s.sh("web", "", "env")
	for _, v := range []string{
		"KEY=from-cm", "OTHER=x y", "P_PASSWORD=p$$w", "PLAIN=plain", "JOINED=plain-from-cm-$(LATER)-$(PLAIN)", "LATER=later", "EMPTY=", "ONE=from-cm", "SECRET=p$$w",
		"POD=web", "NS=" + s.ns, "NODE=" + nodeName, "IP=" + p.Status.PodIP, "HOST=" + nodeIP, "LABEL=web", "SA=default", "CPU=500", "MEM=32", "HOSTNAME=web",
		"KUBERNETES_SERVICE_HOST=10.43.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_PORT=tcp://10.43.0.1:443",
	} {
		if !strings.Contains(env, "\n"+v+"\n") {
			t.Errorf("the environment lacks %q:%s", v, env)
		}
	}
	if strings.Contains(env, "\nMAYBE=") {
		t.Error("an optional variable without a source is set")
	}
	if got := s.kubectl("logs", "web"); got != "args: plain $(PLAIN) $(NOBODY) plain-from-cm-$(LATER)-$(PLAIN)\n" {
		t.Errorf("arguments: %q", got)
	}

	for name, v := range map[string][2]string{
		"nocm":  {"env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: a}}}]", `configmap "none" not found`},
		"nokey": {"env: [{name: A, valueFrom: {configMapKeyRef: {name: cm, key: none}}}]", "couldn't find key none in ConfigMap " + s.ns + "/cm"},
		"nosec": {"envFrom: [{secretRef: {name: none}}]", `secret "none" not found`},
	} {
		s.apply(podOf(name, "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, v[0])))
		s.waitPod(name, func(p *corev1.Pod) error {
			if w := status(p, "main").State.Waiting; w == nil || w.Reason != "CreateContainerConfigError" || !strings.Contains(w.Message, v[1]) {
				return fmt.Errorf("%+v", status(p, "main").State.Waiting)
			}
			return nil
		})
		s.event(name, "Failed", "Error: "+v[1])
	}
	// What the kernel cannot give a process is named, and put right by the ConfigMap.
	s.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\ndata: {LARGE: " + strings.Repeat("x", 131_072) + "}\n")
	s.apply(podOf("large", "terminationGracePeriodSeconds: 1", "containers:", container("main", forever, "envFrom: [{configMapRef: {name: large}}]")))
	s.event("large", "Failed", "env: the variable LARGE has 131078 bytes, and the kernel takes no more than 131071")
	wantMatch(t, "get pods", s.kubectl("get", "pods"), `^large +0/1 +CreateContainerError +0`)
	s.kubectl("patch", "configmap", "large", "-p", `{"data":{"LARGE":"a"}}`)
	s.ready("large")

	s.kubectl("create", "configmap", "none", "--from-literal=a=b")
	s.ready("nocm")
	wantMatch(t, "get pods", s.kubectl("get", "pods"), `^nokey +0/1 +CreateContainerConfigError +0`)
}
