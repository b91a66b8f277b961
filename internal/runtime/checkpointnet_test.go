package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"carob.dev/carob/internal/sys"
)

// TestCheckpointUnlocks holds that a Pod is within reach again after CRIU was killed, which had closed its network with a table of nftables.
func TestCheckpointUnlocks(t *testing.T) {
	c := newCheckpointing(t)
	pod := c.pod(c.podConfig("locked"))
	id := c.start(pod, containerConfig("c", "sh", "-c", count))
	inPod := func(f func(*nftables.Conn) error) {
		t.Helper()
		err := sys.InNamespaces(c.sandboxes[pod].rec.PausePID, []string{"net"}, func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			return f(conn)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	inPod(func(conn *nftables.Conn) error {
		for _, name := range []string{"CRIU-17", "theirs"} {
			conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
		}
		return conn.Flush()
	})
	c.does(wroteSome + "sleep 1000")
	if err := c.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: filepath.Join(c.out, "a.tar"), Timeout: 1}); err == nil {
		t.Error("no timeout")
	}
	c.counts(id)
	inPod(func(conn *nftables.Conn) error {
		tables, err := conn.ListTables()
		if len(tables) != 1 || tables[0].Name != "theirs" {
			t.Errorf("tables %v", tables)
		}
		return err
	})
}

// TestUnlockChain does so with programs that write down how they are called.
func TestUnlockChain(t *testing.T) {
	for name, tc := range map[string]struct{ list, restore, called, says string }{
		"no chain":      {"exit 1", "exit 0", "-w -n -L CRIU|", ""},
		"chain":         {"exit 0", "cat >>$0.log", "-w -n -L CRIU|-w --noflush|*filter|:CRIU - [0:0]|-D INPUT -j CRIU|-D OUTPUT -j CRIU|-X CRIU|COMMIT|", ""},
		"it stays":      {"exit 0", "echo busy; exit 4", "-w -n -L CRIU|-w --noflush|", "exit status 4: busy"},
		"not a program": {"", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir+":/usr/bin:/bin")
			if tc.list != "" {
				for name, body := range map[string]string{"carobtables": tc.list, "carobtables-restore": tc.restore} {
					text := "#!/bin/sh\necho \"$*\" >>" + dir + "/log\n" + strings.ReplaceAll(body, "$0.log", dir+"/log") + "\n"
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			err := unlockChain("carobtables")
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("%v, want %q", err, tc.says)
			}
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			if got := strings.ReplaceAll(string(log), "\n", "|"); got != tc.called {
				t.Errorf("called %q, want %q", got, tc.called)
			}
		})
	}
}
