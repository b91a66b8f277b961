package app

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"carob.dev/carob/internal/config"
)

func TestWhatLibrariesLog(t *testing.T) {
	for _, level := range []string{"info", "debug"} {
		var out bytes.Buffer
		_, hush := logger(config.Config{LogLevel: level}, &out)
		log := klog.Background().WithName("x")
		log.Info("chatter")
		log.Error(errors.New("read: use of closed network connection"), "Error on socket receive")
		log.Error(errors.New("disk on fire"), "Unhandled Error")
		hush()
		log.Error(errors.New("context canceled"), "at the end")
		got := out.String()
		want := map[string]bool{"chatter": false, "closed network": level == "debug", "on fire": true, "at the end": level == "debug"}
		for text, there := range want {
			if strings.Contains(got, text) != there {
				t.Errorf("level %s: %q is there: %v, want %v\n%s", level, text, !there, there, got)
			}
		}
	}
	klog.ClearLogger()
}
