//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAccess is who may do what, as people and programs in Pods find it.
func TestAccess(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"InCluster", accessInCluster}, {"Roles", accessRoles}, {"BoundToken", accessBoundToken}, {"LegacyToken", accessLegacyToken},
		{"Certificate", accessCertificate}, {"Taint", accessTaint},
	} {
		t.Run(v.name, v.f)
	}
}

// withKubectl is a Pod that finds the stock kubectl at /kubectl, and nothing else that would tell it where the API server is.
func withKubectl(name string) string {
	return podOf(name, "terminationGracePeriodSeconds: 0", "volumes: [{name: bin, hostPath: {path: "+kubectlBinary+", type: File}}]",
		"containers:", `- {name: main, image: debian, command: [sleep, "1000000"], volumeMounts: [{name: bin, mountPath: /kubectl, readOnly: true}]}`)
}

// accessInCluster lets the kubectl in a Pod find the API server as any client does: by its environment, its token and the ClusterIP.
func accessInCluster(t *testing.T) {
	s := newSpace(t)
	s.apply(withKubectl("client"))
	s.ready("client")
	env := s.sh("client", "", "env")
	want(t, "the environment", env, "KUBERNETES_SERVICE_HOST=10.43.0.1\n", "KUBERNETES_SERVICE_PORT=443\n", "KUBERNETES_SERVICE_PORT_HTTPS=443\n")
	out := s.sh("client", "", "/kubectl get pods 2>&1; true")
	want(t, "without a role", out, fmt.Sprintf(`pods is forbidden: User "system:serviceaccount:%[1]s:default" cannot list resource "pods" in API group "" in the namespace "%[1]s"`, s.ns))
	s.kubectl("create", "rolebinding", "viewers", "--clusterrole=view", "--serviceaccount="+s.ns+":default")
	s.eventually("the role works", func() error {
		if out := s.sh("client", "", "/kubectl get pods -o name 2>&1; true"); out != "pod/client\n" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	want(t, "what viewers do not see", s.sh("client", "", "/kubectl get secrets 2>&1; true"), `cannot list resource "secrets"`)
	want(t, "elsewhere", s.sh("client", "", "/kubectl get pods -n kube-system 2>&1; true"), `cannot list resource "pods" in API group "" in the namespace "kube-system"`)
	want(t, "who it is", s.sh("client", "", "/kubectl auth whoami 2>&1"), "system:serviceaccount:"+s.ns+":default", "authentication.kubernetes.io/pod-name", nodeName)
	want(t, "the issuer's keys", s.sh("client", "", "/kubectl get --raw /openid/v1/jwks"), `"kty":"EC"`)
}

func accessRoles(t *testing.T) {
	s := newSpace(t)
	as := "--as=jane"
	s.kubectl("create", "role", "pods", "--verb=get,list", "--resource=pods")
	s.kubectl("create", "rolebinding", "pods", "--role=pods", "--user=jane")
	s.eventually("jane may list Pods", func() error {
		_, stderr, err := s.try("get", "pods", as)
		if err != nil {
			return fmt.Errorf("%s", stderr)
		}
		return nil
	})
	if out, _, _ := s.try("auth", "can-i", "delete", "pods", as); out != "no\n" {
		t.Errorf("can-i delete: %q", out)
	}
	wantMatch(t, "can-i --list", s.kubectl("auth", "can-i", "--list", as), `^pods +\[\] +\[\] +\[get list\]$`, `^selfsubjectreviews.authentication.k8s.io +\[\] +\[\] +\[create\]$`)
	wantMatch(t, "get rolebinding", s.kubectl("get", "rolebinding", "-o", "wide"), `^NAME +ROLE +AGE +USERS +GROUPS +SERVICEACCOUNTS$`, `^pods +Role/pods +[0-9]+s +jane`)
	want(t, "describe", s.kubectl("describe", "rolebinding", "pods"), "Kind:  Role", "User  jane")
	s.kubectl("create", "rolebinding", "editors", "--clusterrole=admin", "--user=jim")
	s.eventually("jim may make roles", func() error {
		if out, _, _ := s.try("auth", "can-i", "create", "roles", "--as=jim"); out != "yes\n" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	want(t, "more than one has", s.refused("create", "role", "nodes", "--verb=get", "--resource=nodes", "--as=jim"),
		`is attempting to grant RBAC permissions not currently held:`, `{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}`)
	out, stderr, err := s.run("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: pods, namespace: "+s.ns+"}\n"+
		"rules: [{apiGroups: [\"\"], resources: [pods], verbs: [watch]}]\n", "auth", "reconcile", "-f", "-")
	if err != nil {
		t.Fatalf("auth reconcile: %v %s", err, stderr)
	}
	want(t, "auth reconcile", out, "role.rbac.authorization.k8s.io/pods reconciled")
	want(t, "the role afterwards", s.kubectl("get", "role", "pods", "-o", "jsonpath={.rules[*].verbs}"), `["get","list"]`, `["watch"]`)
}

// accessBoundToken ends with its Pod.
func accessBoundToken(t *testing.T) {
	s := newSpace(t)
	s.apply(simple("owner", forever))
	s.ready("owner")
	token := strings.TrimSpace(s.kubectl("create", "token", "default", "--bound-object-kind=Pod", "--bound-object-name=owner"))
	who := func() (string, string, error) {
		return s.try("--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify", "--token="+token, "auth", "whoami")
	}
	out, stderr, err := who()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	want(t, "whoami", out, "system:serviceaccount:"+s.ns+":default")
	s.kubectl("delete", "pod", "owner", "--grace-period=0", "--force")
	s.eventually("the token is of no use", func() error {
		if _, stderr, err := who(); err == nil || !strings.Contains(stderr, "Unauthorized") && !strings.Contains(stderr, "must be logged in") {
			return fmt.Errorf("%v %s", err, stderr)
		}
		return nil
	})
}

// accessLegacyToken is a Secret that is filled with a token, and a token that ends with the Secret.
func accessLegacyToken(t *testing.T) {
	s := newSpace(t)
	secret := "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata: {name: legacy, annotations: {kubernetes.io/service-account.name: %s}}\n"
	s.apply(fmt.Sprintf(secret, "default"))
	var token string
	s.eventually("the Secret is filled", func() error {
		out := s.kubectl("get", "secret", "legacy", "-o", "go-template={{.data.token | base64decode}} {{len .data}}")
		var n string
		token, n, _ = strings.Cut(out, " ")
		if n != "3" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	who := func() (string, string, error) {
		return s.try("--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify", "--token="+token, "auth", "whoami")
	}
	out, stderr, err := who()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	want(t, "whoami", out, "system:serviceaccount:"+s.ns+":default")
	want(t, "describe", s.kubectl("describe", "secret", "legacy"), "kubernetes.io/service-account.uid", "namespace:")
	s.kubectl("delete", "secret", "legacy")
	s.eventually("the token is of no use", func() error {
		if _, _, err := who(); err == nil {
			return fmt.Errorf("it is")
		}
		return nil
	})
	s.apply(fmt.Sprintf(secret, "nobody"))
	s.eventually("a Secret of an account that is not there goes away", func() error {
		if _, _, err := s.try("get", "secret", "legacy"); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})
}

// accessCertificate gets jane a certificate as the documentation of Kubernetes has it, and lets her in by it.
func accessCertificate(t *testing.T) {
	s := newSpace(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "janet", Organization: []string{"devs"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := func(name string) string {
		return "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {name: " + name + "}\nspec:\n" +
			"  signerName: kubernetes.io/kube-apiserver-client\n  usages: [client auth]\n  expirationSeconds: 3600\n  request: " +
			base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})) + "\n"
	}
	name, unwanted := s.ns+"-janet", s.ns+"-unwanted"
	s.apply(request(name))
	s.apply(request(unwanted))
	t.Cleanup(func() { s.try("delete", "csr", name, unwanted) })
	wantMatch(t, "get csr", s.kubectl("get", "csr", name), `^NAME +AGE +SIGNERNAME +REQUESTOR +REQUESTEDDURATION +CONDITION$`,
		`^`+name+` +[0-9]+s +kubernetes\.io/kube-apiserver-client +kubernetes-admin +60m +Pending$`)
	want(t, "deny", s.kubectl("certificate", "deny", unwanted), "denied")
	want(t, "approve", s.kubectl("certificate", "approve", name), "approved")
	dir := t.TempDir()
	s.eventually("the certificate is there", func() error {
		out := s.kubectl("get", "csr", name, "-o", "jsonpath={.status.certificate}")
		cert, err := base64.StdEncoding.DecodeString(out)
		if err != nil || len(cert) == 0 {
			return fmt.Errorf("%q %v", out, err)
		}
		return os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600)
	})
	wantMatch(t, "get csr", s.kubectl("get", "csr"), `^`+name+` .*Approved,Issued$`, `^`+unwanted+` .*Denied$`)
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	out, stderr, err := s.try("--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify",
		"--client-certificate="+filepath.Join(dir, "cert.pem"), "--client-key="+filepath.Join(dir, "key.pem"), "auth", "whoami")
	if err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	want(t, "whoami", out, "janet", "[devs system:authenticated]")
}

// accessTaint taints a node that is made up for it, so that the Pods of other tests stay where they are.
func accessTaint(t *testing.T) {
	s := newSpace(t)
	node := s.ns + ".example.com"
	s.apply("apiVersion: v1\nkind: Node\nmetadata: {name: " + node + "}\n")
	t.Cleanup(func() { s.try("delete", "node", node) })
	on := func(name, tolerations string) string {
		return podOf(name, "nodeName: "+node, "tolerations: "+tolerations, "terminationGracePeriodSeconds: 0", "containers:", container("main", forever))
	}
	s.apply(on("plain", "[]"))
	s.apply(on("patient", `[{key: maintenance, operator: Exists, effect: NoExecute, tolerationSeconds: 1}]`))
	s.apply(on("tolerant", `[{key: maintenance, operator: Exists, effect: NoExecute}]`))
	s.kubectl("taint", "node", node, "maintenance=now:NoExecute")
	deleted := func(name string) func() error {
		return func() error {
			out, stderr, _ := s.try("get", "pod", name, "-o", `jsonpath={.metadata.deletionTimestamp} {.status.conditions[?(@.type=="DisruptionTarget")].reason}`)
			if strings.Contains(stderr, "not found") || strings.HasSuffix(out, "Z DeletionByTaintManager") {
				return nil
			}
			return fmt.Errorf("%s %s", out, stderr)
		}
	}
	s.eventually("the Pod that tolerates nothing is evicted", deleted("plain"))
	s.eventually("the Pod that tolerates it for a second is evicted", deleted("patient"))
	s.eventually("events", func() error {
		out := s.kubectl("get", "events", "--field-selector", "reason=TaintManagerEviction", "-o", "jsonpath={.items[*].message}")
		for _, name := range []string{"plain", "patient"} {
			if !strings.Contains(out, "Marking for deletion Pod "+s.ns+"/"+name) {
				return fmt.Errorf("%s", out)
			}
		}
		return nil
	})
	if err := deleted("tolerant")(); err == nil {
		t.Error("the Pod that tolerates it is evicted")
	}
}
