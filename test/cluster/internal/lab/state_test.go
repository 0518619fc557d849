package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	started, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Skipf("no process to be started: %v", err)
	}
	for name, test := range map[string]struct {
		info    *Info
		running bool
	}{
		"none":                  {},
		"running":               {&Info{Pid: os.Getpid(), Started: started}, true},
		"the number is another": {&Info{Pid: os.Getpid(), Started: started + 1}, false},
		"ended":                 {&Info{Pid: ended.Process.Pid, Started: started}, false},
	} {
		state := State{Folder: t.TempDir()}
		if test.info != nil {
			if err := state.write(test.info); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := state.Read(); test.running != (err == nil) || err != nil && !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Remove removes what is the cluster's and nothing else.
func TestRemove(t *testing.T) {
	state := State{Folder: filepath.Join(t.TempDir(), "state")}
	if err := state.Remove(); err != nil {
		t.Errorf("where nothing is: %v", err)
	}
	for _, name := range []string{"plane/etcd", "pods", "images", "bin"} {
		if err := os.MkdirAll(filepath.Join(state.Folder, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(state.Folder, "notes.txt")
	if err := os.WriteFile(foreign, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := state.Remove(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(state.Folder)
	if err != nil || len(entries) != 1 || entries[0].Name() != "notes.txt" {
		t.Errorf("left %v, error %v, want notes.txt alone", entries, err)
	}
}
