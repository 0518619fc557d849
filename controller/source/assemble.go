package source

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source/manifest"
)

// served is an object that a State holds.
type served struct {
	object metav1.Object
	at     place
}

// place is where an object stands. Two places are equal when nothing about their lines can differ.
type place struct {
	file  string
	piece piece
	entry *entry
}

// line is the object's line in its file.
func (p place) line() int { return p.piece.line + p.entry.line - 1 }

// location finds lines of fields by parsing the document again, when asked.
func (p place) location() Location {
	return Location{File: p.file, Line: p.line(), Fields: func(path string) int {
		line := manifest.Line([]byte(p.piece.doc.key.text), p.piece.doc.key.json, p.entry.prefix+path)
		if line == 0 {
			return p.line()
		}
		return p.piece.line + line - 1
	}}
}

// assembly is one State on its way.
type assembly struct {
	folder   *Folder
	next     map[Ref]served
	problems []problem.Problem
	// wrong is what was set aside, to be replaced by the last good version: by object, and by file for what cannot be named.
	wrong []wrong
}

// wrong is an entry that is set aside, and why.
type wrong struct {
	at     place
	faults []fault
}

// assemble makes the State out of the files: the first of the valid objects of one name counts, what is wrong is reported, and the
// last good version takes the place of what is wrong. It returns the last State when nothing differs. f.mu is held.
func (f *Folder) assemble(files []*file, s *scan) (*State, bool) {
	a := &assembly{folder: f, next: make(map[Ref]served, len(f.served)), problems: slices.Clone(s.problems)}
	held := map[string]bool{}
	for _, file := range files {
		for _, p := range file.pieces {
			for _, e := range p.doc.entries {
				a.add(place{file.path, p, e})
			}
			held[file.path] = held[file.path] || p.doc.anonymous
		}
		held[file.path] = held[file.path] || file.hold
	}
	a.keepNamed()
	kept := a.keepHeld(func(path string) bool { return held[path] || below(path, s.held) })
	for _, file := range files {
		a.fileProblem(file, kept[file.path])
	}
	problem.Sort(a.problems)
	return f.publish(a)
}

// below reports whether the path is one of the held files, or within one of the held directories.
func below(path string, held []string) bool {
	const slash = string(filepath.Separator)
	return slices.ContainsFunc(held, func(h string) bool {
		return path == h || h == "." && !filepath.IsAbs(path) || strings.HasPrefix(path, strings.TrimSuffix(h, slash)+slash)
	})
}

// add takes in an entry, or reports what is wrong with it.
func (a *assembly) add(at place) {
	e := at.entry
	if e.object == nil {
		a.wrong = append(a.wrong, wrong{at, e.faults})
		return
	}
	if first, twice := a.next[e.ref]; twice {
		a.report(at, fault{line: e.line, reason: problem.Duplicate, message: fmt.Sprintf(
			"the object stands twice, first in %s:%d, and that one counts; remove one of them", first.at.file, first.at.line())}, "the object")
		return
	}
	object, bad := a.folder.develop(e.object)
	if bad != nil {
		bad.line = max(manifest.Line([]byte(at.piece.doc.key.text), at.piece.doc.key.json, e.prefix+bad.field), e.line)
		a.wrong = append(a.wrong, wrong{at, []fault{*bad}})
		return
	}
	// An edit that comes to the same object (a comment, the order of keys) does not change it, nor does filling it in again.
	if last, ok := a.folder.served[e.ref]; ok && last.object != object && equality.Semantic.DeepEqual(last.object, object) {
		if object == e.object {
			e.object = last.object
		}
		object = last.object
	}
	a.next[e.ref] = served{object, at}
}

// keepNamed puts the last good version in the place of each object that is wrong, and reports what is wrong.
func (a *assembly) keepNamed() {
	for _, w := range a.wrong {
		ref, aside := w.at.entry.ref, "the object"
		if ref.Name == "" {
			aside = "the document"
		}
		if _, valid := a.next[ref]; !valid && ref.Name != "" && !w.at.entry.foreign {
			if last, ok := a.folder.served[ref]; ok {
				a.next[ref] = served{last.object, w.at}
			}
		}
		if now, ok := a.next[ref]; ok && now.at == w.at {
			aside = "the change; the last good version stays in use"
		}
		for _, f := range w.faults {
			a.report(w.at, f, aside)
		}
	}
}

// keepHeld keeps what came from held files before and is nowhere else now. It returns how many objects of each file.
func (a *assembly) keepHeld(held func(path string) bool) map[string]int {
	kept := map[string]int{}
	for ref, last := range a.folder.served {
		if _, ok := a.next[ref]; !ok && held(last.at.file) {
			a.next[ref] = last
			kept[last.at.file]++
		}
	}
	return kept
}

// fileProblem reports what is wrong with a file as a whole.
func (a *assembly) fileProblem(file *file, kept int) {
	p := problem.Problem{File: file.path, SetAside: "the file"}
	if kept > 0 {
		p.SetAside = "the change; the last good version stays in use"
	}
	switch {
	case file.fault != nil:
		p.Line, p.Reason, p.Message = file.fault.line, file.fault.reason, file.fault.message
	case file.hold && kept > 0:
		p.Line, p.Reason = 1, problem.Unparsable
		p.Message = fmt.Sprintf("file is empty; the %d objects that came from it before stay in use until it is written or deleted", kept)
	default:
		return
	}
	a.problems = append(a.problems, p)
}

func (a *assembly) report(at place, f fault, aside string) {
	a.problems = append(a.problems, problem.Problem{
		Kind: at.entry.ref.Kind, Namespace: at.entry.ref.Namespace, Name: at.entry.ref.Name,
		File: at.file, Line: at.piece.line + f.line - 1, Field: f.field,
		Reason: f.reason, Message: f.message, SetAside: aside,
	})
}

// publish makes a State that shares with the last one whatever did not change.
func (f *Folder) publish(a *assembly) (*State, bool) {
	changed, moved := map[string]bool{}, f.state == nil
	count := map[string]int{}
	for ref, now := range a.next {
		count[ref.Kind]++
		last, ok := f.served[ref]
		if !ok || last.object != now.object {
			changed[ref.Kind] = true
		}
		moved = moved || last.at != now.at
	}
	for ref := range f.served {
		if _, ok := a.next[ref]; !ok {
			changed[ref.Kind] = true
		}
	}
	f.served = a.next
	if !moved && len(changed) == 0 && slices.Equal(f.state.Problems, a.problems) {
		return f.state, false
	}
	state := NewState()
	if f.state != nil {
		*state = *f.state
		state.Revisions = maps.Clone(f.state.Revisions)
	}
	state.Problems = a.problems
	state.Where = make(map[Ref]Location, len(a.next))
	objects := make(map[string][]metav1.Object, len(changed))
	for kind := range changed {
		objects[kind] = make([]metav1.Object, 0, count[kind])
	}
	for ref, now := range a.next {
		state.Where[ref] = now.at.location()
		if changed[ref.Kind] {
			objects[ref.Kind] = append(objects[ref.Kind], now.object)
		}
	}
	for kind, list := range objects {
		if err := state.Replace(kind, list); err != nil {
			panic("source: " + err.Error()) // the schema decodes kinds that a State holds, each into its own type
		}
	}
	f.state = state
	return state, true
}
