package ownership

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func pod(name string, lbls map[string]string, owner types.UID, deleted bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Labels: lbls}}
	if owner != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "rs", UID: owner, Controller: &yes}}
	}
	if deleted {
		now := metav1.Now()
		p.DeletionTimestamp = &now
	}
	return p
}

func TestJudge(t *testing.T) {
	web := map[string]string{"app": "web", "extra": "1"}
	other := map[string]string{"app": "other"}
	now := metav1.Now()
	live := &metav1.ObjectMeta{Namespace: "ns", Name: "rs", UID: "rs-1"}
	dying := &metav1.ObjectMeta{Namespace: "ns", Name: "rs", UID: "rs-1", DeletionTimestamp: &now}
	tests := []struct {
		name  string
		owner metav1.Object
		pod   *corev1.Pod
		want  Verdict
	}{
		{"ours, matches", live, pod("a", web, "rs-1", false), Keep},
		{"ours, no longer matches", live, pod("a", other, "rs-1", false), Release},
		{"ours, no longer matches, we are going", dying, pod("a", other, "rs-1", false), Ignore},
		{"ours, matches, we are going", dying, pod("a", web, "rs-1", false), Keep},
		{"another's, matches too", live, pod("a", web, "rs-2", false), Ignore},
		{"orphan, matches", live, pod("a", web, "", false), Adopt},
		{"orphan, does not match", live, pod("a", other, "", false), Ignore},
		{"orphan, matches, it is going", live, pod("a", web, "", true), Ignore},
		{"orphan, matches, we are going", dying, pod("a", web, "", false), Ignore},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Judge(tt.owner, labels.SelectorFromSet(labels.Set{"app": "web"}), tt.pod); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func claimer(fresh metav1.Object, freshErr error, patches map[string]string) *Claimer[*corev1.Pod] {
	return &Claimer[*corev1.Pod]{
		Owner:    &metav1.ObjectMeta{Namespace: "ns", Name: "rs", UID: "rs-1"},
		Kind:     schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"},
		Selector: labels.SelectorFromSet(labels.Set{"app": "web"}),
		Fresh:    func(context.Context) (metav1.Object, error) { return fresh, freshErr },
		Patch: func(_ context.Context, p *corev1.Pod, patch []byte) error {
			patches[p.Name] = string(patch)
			return nil
		},
	}
}

func TestClaim(t *testing.T) {
	web := map[string]string{"app": "web"}
	patches := map[string]string{}
	c := claimer(&metav1.ObjectMeta{UID: "rs-1"}, nil, patches)
	got, err := c.Claim(t.Context(), []*corev1.Pod{
		pod("mine", web, "rs-1", false),
		pod("orphan", web, "", false),
		pod("stray", nil, "rs-1", false),
		pod("theirs", web, "rs-2", false),
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got {
		names = append(names, p.Name)
	}
	if diff := cmp.Diff([]string{"mine", "orphan"}, names); diff != "" {
		t.Error(diff)
	}
	want := map[string]string{
		"orphan": `{"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"rs","uid":"rs-1",` +
			`"controller":true,"blockOwnerDeletion":true}],"uid":"uid-orphan"}}`,
		"stray": `{"metadata":{"ownerReferences":[{"$patch":"delete","uid":"rs-1"}],"uid":"uid-stray"}}`,
	}
	if diff := cmp.Diff(want, patches); diff != "" {
		t.Error(diff)
	}
	for name, p := range patches {
		if !json.Valid([]byte(p)) {
			t.Errorf("%s: not JSON", name)
		}
	}
}

func TestNoAdoptionByAnOwnerThatIsGone(t *testing.T) {
	now := metav1.Now()
	tests := []struct {
		name  string
		fresh metav1.Object
		err   error
	}{
		{"deleted meanwhile", &metav1.ObjectMeta{UID: "rs-1", DeletionTimestamp: &now}, nil},
		{"made anew under the same name", &metav1.ObjectMeta{UID: "rs-9"}, nil},
		{"not there", nil, errors.New("not found")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			patches := map[string]string{}
			got, err := claimer(tt.fresh, tt.err, patches).Claim(t.Context(), []*corev1.Pod{pod("o", map[string]string{"app": "web"}, "", false)})
			if err == nil || len(got) != 0 || len(patches) != 0 {
				t.Errorf("got %v, %v, patches %v", got, err, patches)
			}
		})
	}
}
