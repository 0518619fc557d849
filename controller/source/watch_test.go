package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"gatehouse.dev/gatehouse/controller/source/schema"
)

// watching runs Watch until the test ends and hands over each State.
func watching(t *testing.T, f *Folder) <-chan *State {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	states, done := make(chan *State, 100), make(chan error, 1)
	go func() { done <- f.Watch(ctx, func(s *State) { states <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	return states
}

// await waits for the State with the values; others may come before it.
func await(t *testing.T, states <-chan *State, want string) *State {
	t.Helper()
	deadline := time.After(20 * time.Second)
	last := "no state"
	for {
		select {
		case s := <-states:
			if last = values(s); last == want {
				return s
			}
		case <-deadline:
			t.Fatalf("%q never came; last: %q", want, last)
		}
	}
}

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatch runs each way of changing a folder, with notifications and by re-scans alone. With notifications the re-scan is an hour
// away, so that only a notification can bring the change.
func TestWatch(t *testing.T) {
	option := WithValidator(schema.New())
	type step struct {
		change func(t *testing.T, dir string)
		want   string
	}
	writes := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { write(t, filepath.Join(dir, name), text) }
	}
	tests := map[string]struct {
		prepare func(t *testing.T, dir string)
		first   string
		steps   []step
	}{
		"write": {writes("f.yaml", configMap("a", "1")), "a=1", []step{
			{writes("f.yaml", configMap("a", "2")), "a=2"},
			{writes("f.yaml", configMap("a", "3")), "a=3"},
		}},
		"create and delete": {writes("f.yaml", configMap("a", "1")), "a=1", []step{
			{writes("g.yaml", configMap("b", "1")), "a=1 b=1"},
			{func(t *testing.T, dir string) { try(t, os.Remove(filepath.Join(dir, "f.yaml"))) }, "b=1"},
		}},
		"rename over": {writes("f.yaml", configMap("a", "1")), "a=1", []step{
			{func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, ".f.yaml.swp"), configMap("a", "2"))
				try(t, os.Rename(filepath.Join(dir, ".f.yaml.swp"), filepath.Join(dir, "f.yaml")))
			}, "a=2"},
		}},
		"rename away and back": {writes("f.yaml", configMap("a", "1")), "a=1", []step{
			{func(t *testing.T, dir string) {
				try(t, os.Rename(filepath.Join(dir, "f.yaml"), filepath.Join(dir, "f.bak")))
			}, ""},
			{func(t *testing.T, dir string) {
				try(t, os.Rename(filepath.Join(dir, "f.bak"), filepath.Join(dir, "g.yaml")))
			}, "a=1"},
		}},
		"new directories": {writes("f.yaml", configMap("a", "1")), "a=1", []step{
			{writes("x/y/g.yaml", configMap("b", "1")), "a=1 b=1"},
			{writes("x/y/g.yaml", configMap("b", "2")), "a=1 b=2"},
			{func(t *testing.T, dir string) { try(t, os.RemoveAll(filepath.Join(dir, "x"))) }, "a=1"},
			{writes("x/y/g.yaml", configMap("b", "3")), "a=1 b=3"},
		}},
		"truncated": {writes("f.yaml", configMap("a", "1")), "a=1", []step{
			{func(t *testing.T, dir string) { try(t, os.Truncate(filepath.Join(dir, "f.yaml"), 0)) }, "a=1 Unparsable:1"},
			{writes("f.yaml", "apiVersion: v1\nkind: Conf"), "a=1 UnknownKind:2"},
			{writes("f.yaml", configMap("a", "2")), "a=2"},
		}},
		"config map mount": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "..v1", "m.yaml"), configMap("a", "1"))
			link(t, "..v1", filepath.Join(dir, "..data"))
			link(t, "..data/m.yaml", filepath.Join(dir, "m.yaml"))
		}, "a=1", []step{
			{func(t *testing.T, dir string) { swap(t, dir, "..v1", "..v2", "2") }, "a=2"},
			{func(t *testing.T, dir string) { swap(t, dir, "..v2", "..v3", "3") }, "a=3"},
		}},
		"link to a file elsewhere": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, ".store", "m.yaml"), configMap("a", "1"))
			link(t, ".store/m.yaml", filepath.Join(dir, "m.yaml"))
		}, "a=1", []step{
			{writes(".store/m.yaml", configMap("a", "2")), "a=2"},
		}},
		"root goes and comes back": {writes("f.yaml", configMap("a", "1")), "a=1", []step{
			{func(t *testing.T, dir string) { try(t, os.Rename(dir, dir+"-old")) }, "a=1 Unreadable:0"},
			{writes("g.yaml", configMap("b", "1")), "b=1"},
			{writes("g.yaml", configMap("b", "2")), "b=2"},
		}},
	}
	for name, test := range tests {
		for _, way := range []string{"notified", "re-scanned"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "config")
				test.prepare(t, dir)
				f := NewFolder([]string{dir}, option, WithRescan(time.Hour))
				if way == "re-scanned" {
					f.deaf, f.rescan = true, 5*time.Millisecond
				}
				states := watching(t, f)
				await(t, states, test.first)
				for _, step := range test.steps {
					step.change(t, dir)
					await(t, states, step.want)
				}
			})
		}
	}
}

// swap replaces a ConfigMap mount's content as the kubelet does: new directory, new link renamed over the old, old directory removed.
func swap(t *testing.T, dir, old, next, value string) {
	write(t, filepath.Join(dir, next, "m.yaml"), configMap("a", value))
	link(t, next, filepath.Join(dir, "..data_tmp"))
	try(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	try(t, os.RemoveAll(filepath.Join(dir, old)))
}

// TestWatchIsSilent changes things that do not matter before one that does: only that one is reported.
func TestWatchIsSilent(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f.yaml"), configMap("a", "1"))
	states := watching(t, NewFolder([]string{dir}, WithValidator(schema.New()), WithRescan(time.Millisecond)))
	first := await(t, states, "a=1")
	put := func(name, text string) { // at once: a re-scan must not see a part
		write(t, filepath.Join(dir, "."+name), text)
		try(t, os.Rename(filepath.Join(dir, "."+name), filepath.Join(dir, name)))
	}
	put("f.yaml", configMap("a", "1"))
	put("notes.txt", "x")
	put("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\n")
	try(t, os.Chtimes(filepath.Join(dir, "f.yaml"), time.Now(), time.Now()))
	put("f.yaml", configMap("a", "2"))
	second := <-states
	if got := values(second); got != "a=2" || second.Revisions["ConfigMap"] != first.Revisions["ConfigMap"]+1 {
		t.Errorf("reported %q at revision %d", got, second.Revisions["ConfigMap"])
	}
}

// TestWait holds the timing of a burst, on a clock of its own.
func TestWait(t *testing.T) {
	tests := map[string]struct {
		gap   time.Duration
		count int
		want  time.Duration
	}{
		"one change":       {0, 1, 20 * time.Millisecond},
		"a burst":          {5 * time.Millisecond, 4, 35 * time.Millisecond},
		"constant writing": {5 * time.Millisecond, 1000, 60 * time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &watcher{changed: map[string]bool{}, watched: map[string][]string{"/d": nil}}
				w.notify = &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				go func() {
					for range test.count {
						select {
						case w.notify.Events <- fsnotify.Event{Name: "/d/f.yaml", Op: fsnotify.Write}:
						case <-ctx.Done():
							return
						}
						time.Sleep(test.gap)
					}
				}()
				everything, err := w.wait(ctx, nil, 20*time.Millisecond, 60*time.Millisecond)
				try(t, err)
				if everything {
					t.Error("a notification about one file asks for a look at every file")
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("waited %v, want %v", took, test.want)
				}
				if !w.dirty("/d/f.yaml") {
					t.Error("the file that changed is not dirty")
				}
			})
		})
	}
}

// TestOverflow checks that lost notifications make everything be read again.
func TestOverflow(t *testing.T) {
	w := &watcher{changed: map[string]bool{}}
	w.notify = &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error, 1)}
	w.notify.Errors <- fsnotify.ErrEventOverflow
	_, err := w.wait(t.Context(), nil, time.Millisecond, time.Millisecond)
	try(t, err)
	if !w.dirty("/any") {
		t.Error("nothing is dirty after an overflow")
	}
	w.end()
	if w.dirty("/any") {
		t.Error("still dirty after a load")
	}
}

// TestWatchWithoutNotifications says so when the system has none left.
func TestWatchWithoutNotifications(t *testing.T) {
	w := &watcher{broken: errors.New("too many open files")}
	if p := w.problems(); len(p) != 1 || !strings.Contains(p[0].Message, "re-scans only: too many open files") {
		t.Errorf("problems %v", p)
	}
}
