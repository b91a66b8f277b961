package agent

import (
	"k8s.io/apimachinery/pkg/types"

	"carob.dev/carob/internal/agent/podstate"
	"carob.dev/carob/internal/agent/server"
)

// View tells the server of a Pod.
func (a *Agent) View(namespace, name string, uid types.UID) (server.View, bool) {
	for _, v := range a.Views() {
		if v.Pod.Namespace == namespace && v.Pod.Name == name && (uid == "" || v.Pod.UID == uid) {
			return v, true
		}
	}
	return server.View{}, false
}

// Views tells the server of all Pods that are in the API.
func (a *Agent) Views() []server.View {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []server.View
	for _, w := range a.workers {
		if v := w.view.Load(); v != nil {
			list = append(list, *v)
		}
	}
	return list
}

// publish lets the server see the worker's present knowledge.
func (w *worker) publish() {
	if w.facts.Gone {
		w.view.Store(nil)
		return
	}
	v := &server.View{Pod: w.pod, Status: w.status.last, Logs: map[string]server.Instances{}}
	if sb := w.facts.Sandbox; sb != nil && sb.Ready {
		v.SandboxID = sb.ID
	}
	for name, c := range w.facts.Containers {
		i := server.Instances{Newest: -1, Previous: -1}
		if c.Last != nil {
			i.Newest, i.Previous = c.Attempt-1, c.Attempt-1
		}
		if c.State != podstate.Absent {
			i.Newest = c.Attempt
		}
		switch c.State {
		case podstate.Running:
			i.RunningID = c.ID
		case podstate.Exited:
			if !podstate.Ending(w.pod, w.facts) && w.backingOff[name] == c.Attempt+1 {
				i.Previous = c.Attempt // it waits to be started again, so this is the last that ran
			}
		}
		v.Logs[name] = i
	}
	w.view.Store(v)
}
