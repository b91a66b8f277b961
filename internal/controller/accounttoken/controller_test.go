package accounttoken

import (
	"log/slog"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

func TestSync(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", UID: "1"}}
	secret := func(uid string, data map[string][]byte) *corev1.Secret {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s", UID: "7", Annotations: map[string]string{corev1.ServiceAccountNameKey: "a"}},
			Type:       corev1.SecretTypeServiceAccountToken, Data: data,
		}
		if uid != "" {
			s.Annotations[corev1.ServiceAccountUIDKey] = uid
		}
		return s
	}
	full := map[string][]byte{"token": []byte("old"), "ca.crt": []byte("x"), "namespace": []byte("n")}
	for _, tt := range []struct {
		name    string
		secret  *corev1.Secret
		account *corev1.ServiceAccount
		cached  bool
		want    string // the token that is there in the end; nothing if the Secret is gone
	}{
		{"empty", secret("", nil), account, true, "new"},
		{"account not in the cache yet", secret("", nil), account, false, "new"},
		{"full", secret("1", full), account, true, "old"},
		{"without the authority", secret("1", map[string][]byte{"token": []byte("old")}), account, true, "new"},
		{"of no account", secret("", nil), nil, false, ""},
		{"of the account that was", secret("0", full), account, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			objects := []runtime.Object{tt.secret}
			if tt.account != nil {
				objects = append(objects, tt.account)
			}
			client := fake.NewClientset(objects...)
			client.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
				r, ok := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
				if !ok || a.GetSubresource() != "token" {
					return false, nil, nil
				}
				if b := r.Spec.BoundObjectRef; b.Kind != "Secret" || b.Name != "s" || b.UID != "7" || r.UID != "1" {
					t.Errorf("bound to %+v of account %s", b, r.UID)
				}
				r.Status.Token = "new"
				return true, r, nil
			})
			factory := informers.NewSharedInformerFactory(client, 0)
			c, err := New(Config{Client: client, Informers: factory, RootCA: []byte("ca"), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.watch.GetIndexer().Add(tt.secret); err != nil {
				t.Fatal(err)
			}
			if tt.cached {
				if err := factory.Core().V1().ServiceAccounts().Informer().GetIndexer().Add(tt.account); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.sync(t.Context(), cache.ObjectName{Namespace: "n", Name: "s"}); err != nil {
				t.Fatal(err)
			}
			got, err := client.CoreV1().Secrets("n").Get(t.Context(), "s", metav1.GetOptions{})
			switch {
			case tt.want == "":
				if !apierrors.IsNotFound(err) {
					t.Errorf("it is there: %+v %v", got, err)
				}
			case err != nil || string(got.Data["token"]) != tt.want || got.Annotations[corev1.ServiceAccountUIDKey] != "1":
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}
