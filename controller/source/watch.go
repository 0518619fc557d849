package source

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"gatehouse.dev/gatehouse/controller/problem"
)

// Watch calls report with the State and then, until the context ends, with each State that differs from the one before. It calls from
// one goroutine, and what changes while report runs comes together in the next State.
//
// A change is taken in when nothing happened for 10 ms, so that a file is read after its writer is done and many files that change
// together are seen together, and after 60 ms at the latest. Where the file system does not notify (some network and overlay file
// systems), or notifications run out, the re-scan finds the change.
//
// The error is that of the context.
func (f *Folder) Watch(ctx context.Context, report func(*State)) error {
	w := newWatcher(f.deaf)
	defer w.close()
	rescan := time.NewTicker(f.rescan)
	defer rescan.Stop()
	everything := true // look at every file, not only at those that were named
	for first := true; ; first = false {
		s := &scan{watch: w.add, problems: w.problems()}
		if !everything && !w.lost {
			s.known = func(path string) (fs.FileInfo, bool) { return f.unnamed(path, w.dirty) }
		}
		w.begin()
		state, changed, err := f.load(ctx, s, w.dirty)
		if err != nil {
			return err
		}
		w.end()
		if first || changed {
			report(state)
		}
		if everything, err = w.wait(ctx, rescan.C, f.quiet, f.patience); err != nil {
			return err
		}
	}
}

// watcher knows which directories to listen to and which files were named since the last load. One goroutine uses it.
type watcher struct {
	notify *fsnotify.Watcher // nil: there is none, only re-scans
	broken error
	// watched is by directory the names of interest; nil means every name. previous is that of the load before.
	watched, previous map[string][]string
	changed           map[string]bool
	// lost is set when notifications were dropped: anything may have changed.
	lost bool
}

func newWatcher(deaf bool) *watcher {
	w := &watcher{changed: map[string]bool{}}
	if !deaf {
		w.notify, w.broken = fsnotify.NewBufferedWatcher(1024)
	}
	return w
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close() // nothing was written that could be lost
	}
}

// problems reports that changes will be seen late.
func (w *watcher) problems() []problem.Problem {
	if w.broken == nil {
		return nil
	}
	return []problem.Problem{{Reason: problem.Unreadable, SetAside: "nothing",
		Message: "changes are not notified and will be seen by re-scans only: " + w.broken.Error() +
			"; raise fs.inotify.max_user_watches and fs.inotify.max_user_instances"}}
}

// begin starts a load: directories are asked for anew.
func (w *watcher) begin() {
	w.previous, w.watched = w.watched, map[string][]string{}
	if w.notify != nil {
		w.broken = nil
	}
}

// add listens to a directory, under its real name: the system knows a directory once, however many links lead to it. Adding one again
// is cheap, and needed where it was replaced by another of its name.
func (w *watcher) add(dir, name string) {
	dir, err := realPath(dir)
	if err != nil {
		return // gone or closed to us: the scan says so, and the re-scan sees it come back
	}
	names, known := w.watched[dir]
	switch {
	case name == "":
		w.watched[dir] = nil
	case !known || names != nil:
		w.watched[dir] = append(names, name)
	}
	if known || w.notify == nil {
		return
	}
	// A directory that is gone is found missing by the scan; any other error means late changes.
	if err := w.notify.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.broken = err
	}
}

// end finishes a load: directories that no longer matter are let go, and the changes are dealt with.
func (w *watcher) end() {
	clear(w.changed)
	w.lost = false
	for dir := range w.previous {
		if _, still := w.watched[dir]; !still && w.notify != nil {
			_ = w.notify.Remove(dir) // it may be gone with its directory
		}
	}
}

// dirty reports whether the file was named by a notification.
func (w *watcher) dirty(path string) bool { return w.lost || w.changed[path] }

// wait returns when it is time to load again. everything says that it is time for a look at every file.
func (w *watcher) wait(ctx context.Context, rescan <-chan time.Time, quiet, patience time.Duration) (everything bool, err error) {
	var events <-chan fsnotify.Event
	var failures <-chan error
	if w.notify != nil {
		events, failures = w.notify.Events, w.notify.Errors
	}
	var calm, enough <-chan time.Time // nil until the first change
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-rescan:
			if calm == nil {
				return true, nil
			}
			everything = true // after the burst
			continue
		case <-calm:
			return everything, nil
		case <-enough:
			return everything, nil
		case event := <-events:
			if !w.matters(event.Name) {
				continue
			}
			w.changed[filepath.Clean(event.Name)] = true
		case failure := <-failures:
			w.lost = failure != nil // overflow, or a failure that may have cost notifications
		}
		calm = time.After(quiet)
		if enough == nil {
			enough = time.After(patience)
		}
	}
}

// matters reports whether the entry is one that a load looks at.
func (w *watcher) matters(path string) bool {
	if _, self := w.watched[path]; self {
		return true
	}
	names, ok := w.watched[filepath.Dir(path)]
	return ok && (names == nil || slices.Contains(names, filepath.Base(path)))
}
