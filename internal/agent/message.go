package agent

import (
	"bytes"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/agent/logs"
	"carob.dev/carob/internal/agent/podstate"
)

// Limits of a container's last words, as Kubernetes sets them.
const (
	maxMessage      = 4096
	maxMessageLog   = 2048
	maxMessageLines = 80
)

// terminationMessage reads an ended container's last words: from its file or, if it asks for that and failed without any, from its log.
func (w *worker) terminationMessage(c *runtimeapi.ContainerStatus) string {
	spec, ok := podstate.Find(w.pod, c.GetMetadata().GetName())
	if !ok {
		return ""
	}
	text := ""
	for _, m := range c.GetMounts() {
		if spec.TerminationMessagePath != "" && m.GetContainerPath() == spec.TerminationMessagePath {
			text = head(m.GetHostPath(), maxMessage)
		}
	}
	if text != "" || spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || c.GetExitCode() == 0 || c.GetReason() == "StartError" {
		return text
	}
	var b bytes.Buffer
	lines := int64(maxMessageLines)
	if err := logs.Read(c.GetLogPath(), logs.Options{Tail: &lines}, &b, &b); err != nil {
		return ""
	}
	if b.Len() > maxMessageLog {
		return string(b.Bytes()[b.Len()-maxMessageLog:])
	}
	return b.String()
}

// head is the first n bytes of a regular file.
func head(path string, n int64) string {
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, _ := io.ReadAll(io.LimitReader(f, n))
	return string(raw)
}

func joinMessages(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return a + ": " + b
}
