package server

import (
	"net/http"

	"carob.dev/carob/internal/agent/measure"
)

// measured are the node's Pods in the form that the Meter wants.
func (s *server) measured() []measure.Pod {
	var list []measure.Pod
	for _, v := range s.Pods.Views() {
		list = append(list, v.Measured())
	}
	return list
}

// Measured is the view in the form that measure.Meter wants.
func (v View) Measured() measure.Pod {
	p := measure.Pod{Pod: v.Pod, Status: v.Status, SandboxID: v.SandboxID, Running: map[string]string{}}
	for name, i := range v.Logs {
		if i.RunningID != "" {
			p.Running[name] = i.RunningID
		}
	}
	return p
}

// summary tells all, or with only_cpu_and_memory=true what needs no look at files.
func (s *server) summary(w http.ResponseWriter, r *http.Request) {
	measured := s.Meter.Summary
	if r.URL.Query().Get("only_cpu_and_memory") == "true" {
		measured = s.Meter.Usage
	}
	sum, window, err := measured(r.Context(), s.measured())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Carob-Window", window.String()) // the API's metrics say over which time their rates are
	answer(w, sum)
}
