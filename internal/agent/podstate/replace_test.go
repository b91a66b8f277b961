package podstate

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReplacing(t *testing.T) {
	end := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	soon, until := end.Add(50*time.Millisecond), end.Add(time.Second)
	exit := &Exit{FinishedAt: end}
	for name, tc := range map[string]struct {
		c    Container
		now  time.Time
		want time.Time
	}{
		"stopped for another":     {Container{State: Exited, Changed: true, Exit: exit, Busy: Stop}, soon, until},
		"made":                    {Container{State: Absent, Replaces: true, Last: exit, Busy: Create}, soon, until},
		"started, not hooked":     {Container{State: Running, Replaces: true, Last: exit}, soon, until},
		"running":                 {Container{State: Running, Replaces: true, Last: exit, Hooked: true}, soon, time.Time{}},
		"still running":           {Container{State: Running, Changed: true, Hooked: true, Busy: Stop}, soon, time.Time{}},
		"takes long":              {Container{State: Absent, Replaces: true, Last: exit, Busy: Pull}, until, time.Time{}},
		"no image":                {Container{State: Absent, Replaces: true, Last: exit, Trouble: &Trouble{Reason: "ErrImagePull"}}, soon, time.Time{}},
		"crashed":                 {Container{State: Exited, Exit: exit}, soon, time.Time{}},
		"started after a crash":   {Container{State: Absent, Last: exit, Busy: Create}, soon, time.Time{}},
		"the other ended as well": {Container{State: Exited, Replaces: true, Exit: exit, Last: exit}, soon, time.Time{}},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
		f := &Facts{Sandbox: &Sandbox{ID: "s", Ready: true}, Containers: map[string]*Container{"c": &tc.c}}
		if got := f.Replacing(pod, tc.now); !got.Equal(tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
		pod.DeletionTimestamp = &metav1.Time{Time: end}
		if got := f.Replacing(pod, tc.now); !got.IsZero() {
			t.Errorf("%s, and the Pod is deleted: %v", name, got)
		}
	}
}
