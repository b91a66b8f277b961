package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/static"
)

// findLeft finds what is left on the node of Pods.
func (a *Agent) findLeft(ctx context.Context) (left, error) {
	sandboxes, err := a.cfg.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return left{}, fmt.Errorf("agent: list sandboxes: %w", err)
	}
	known := map[types.UID][]*runtimeapi.PodSandboxStatusResponse{}
	for _, sb := range sandboxes {
		st, err := a.cfg.Runtime.PodSandboxStatus(ctx, sb.GetId(), false)
		if err != nil {
			return left{}, fmt.Errorf("agent: look at sandbox %s: %w", sb.GetId(), err)
		}
		uid := types.UID(sb.GetMetadata().GetUid())
		known[uid] = append(known[uid], st)
		users := st.GetStatus().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions()
		if err := a.ranges.Keep(uid, users); err != nil {
			a.cfg.Log.Warn("write down which user IDs a Pod has", "uid", uid, "error", err)
		}
	}
	return left{records: a.readRecords(), known: known}, nil
}

// takeUp makes workers for all Pods of the API, and for what is left of Pods that are no longer there.
func (a *Agent) takeUp(ctx context.Context, l left) error {
	records, known := l.records, l.known
	for _, obj := range a.pods.GetStore().List() {
		pod := obj.(*corev1.Pod)
		if static.IsMirror(pod) {
			continue // its worker is that of the static Pod
		}
		a.start(ctx, pod, records[pod.UID], known[pod.UID], true)
		delete(records, pod.UID)
		delete(known, pod.UID)
	}
	for uid, f := range records {
		a.start(ctx, orphan(uid, f), f, known[uid], true)
		delete(known, uid)
	}
	for uid, list := range known {
		m := list[0].GetStatus().GetMetadata()
		f := &podstate.Facts{Version: podstate.FactsVersion, UID: string(uid), Namespace: m.GetNamespace(), Name: m.GetName()}
		a.start(ctx, orphan(uid, f), f, list, true)
	}
	return a.removeStrayFolders(ctx)
}

// removeStrayFolders tears down volumes of Pods of which nothing else is left.
func (a *Agent) removeStrayFolders(ctx context.Context) error {
	entries, err := os.ReadDir(a.cfg.podsDir())
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	for _, e := range entries {
		uid := types.UID(e.Name())
		if a.worker(uid) != nil {
			continue
		}
		a.wg.Go(func() { a.removeStray(ctx, uid) })
	}
	return nil
}

// removeStray removes one such folder. What hinders it may pass, as when a storage driver has yet to come back, so it is tried again.
func (a *Agent) removeStray(ctx context.Context, uid types.UID) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := a.removeFolder(ctx, uid)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.cfg.Log.Warn("remove what a Pod left", "uid", uid, "error", err)
		timer := a.cfg.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}

// removeFolder removes the Pod's volumes and the rest of its folder. Its containers must be gone.
func (a *Agent) removeFolder(ctx context.Context, uid types.UID) error {
	dir := a.cfg.podDir(uid)
	err := errors.Join(os.RemoveAll(filepath.Join(dir, "containers")), os.RemoveAll(filepath.Join(dir, "etc-hosts")))
	return errors.Join(err, a.ranges.Release(uid), a.volumes.Teardown(ctx, uid))
}

// orphan stands for a Pod that is no longer in the API.
func orphan(uid types.UID, f *podstate.Facts) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Namespace: f.Namespace, Name: f.Name}}
	for name := range f.Containers {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
	}
	f.Gone = true
	return pod
}

func (a *Agent) readRecords() map[types.UID]*podstate.Facts {
	all := map[types.UID]*podstate.Facts{}
	entries, err := os.ReadDir(a.cfg.recordsDir())
	if err != nil {
		return all
	}
	for _, e := range entries {
		uid, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(uid, ".") {
			continue
		}
		path := filepath.Join(a.cfg.recordsDir(), e.Name())
		raw, err := os.ReadFile(path)
		f := &podstate.Facts{}
		if err == nil {
			err = json.Unmarshal(raw, f)
		}
		if err == nil && (f.Version != podstate.FactsVersion || f.UID != uid) {
			err = fmt.Errorf("version %d of Pod %q is not understood", f.Version, f.UID)
		}
		if err != nil {
			a.cfg.Log.Error("the record of a Pod cannot be read; the Pod starts anew", "path", path, "error", err)
			continue
		}
		all[types.UID(uid)] = f
	}
	return all
}
