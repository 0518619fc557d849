package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source/manifest"
	"gatehouse.dev/gatehouse/controller/source/schema"
)

// racyWindow is how long after its last change a file's time stamps are not trusted to tell a further change: file systems stamp
// in steps of up to two seconds.
const racyWindow = 2 * time.Second

// Folder reads the objects of files and directories of YAML and JSON.
//
// What it remembers makes a change cheap: files whose stamps did not change are not read, documents whose text did not change are not
// parsed, and objects that come to the same keep their pointer. It also remembers what it served last, for the rule that a mistake
// while editing does not take anything down:
//
//   - an object that is now wrong keeps being served in its last good version;
//   - a file that cannot be read, is empty, or holds a document that cannot be named keeps all its objects;
//   - an object whose document is gone from a good file, or whose file is gone, is gone.
//
// Its methods may be called from any goroutine.
type Folder struct {
	roots  []string
	parser parser
	issuer Issuer
	// timing of Watch.
	quiet, patience, rescan time.Duration
	// deaf turns notifications off, so that tests see the slow way.
	deaf bool

	mu sync.Mutex
	// Guarded by mu: what the last load found.
	files  map[string]*file
	docs   map[documentKey]*document
	served map[Ref]served
	state  *State
}

// file is what one file came to.
type file struct {
	path   string
	real   string
	info   fs.FileInfo
	read   time.Time
	pieces []piece
	fault  *fault
	// hold keeps everything that came from the file before.
	hold bool
}

// piece is a document and the line on which it starts.
type piece struct {
	doc  *document
	line int
}

// Option changes how a Folder works.
type Option func(*Folder)

// WithIssuer sets who fills in development certificates. Without one a Secret that asks for a certificate is set aside.
func WithIssuer(issuer Issuer) Option { return func(f *Folder) { f.issuer = issuer } }

// WithValidator shares a Validator, and so its compiled schemas, between Folders.
func WithValidator(v *schema.Validator) Option { return func(f *Folder) { f.parser.validator = v } }

// WithRescan sets how often Watch looks at all files even if no change was notified; the default is 5 s.
func WithRescan(every time.Duration) Option { return func(f *Folder) { f.rescan = every } }

// NewFolder returns a Folder over the files and directories. Directories are read with their subdirectories: every file that is named
// .yaml, .yml or .json, save those that start with a dot.
func NewFolder(paths []string, options ...Option) *Folder {
	f := &Folder{
		quiet:    10 * time.Millisecond,
		patience: 60 * time.Millisecond,
		rescan:   5 * time.Second,
		files:    map[string]*file{},
		docs:     map[documentKey]*document{},
		served:   map[Ref]served{},
	}
	for _, path := range paths {
		f.roots = append(f.roots, filepath.Clean(path))
	}
	for _, option := range options {
		option(f)
	}
	if f.parser.validator == nil {
		f.parser.validator = schema.New()
	}
	return f
}

// Load reads everything and returns the State. Called again, it returns the same State unless something changed. What cannot be read or
// is wrong stands in State.Problems; the error is only ever that of the context.
func (f *Folder) Load(ctx context.Context) (*State, error) {
	state, _, err := f.load(ctx, &scan{}, func(string) bool { return false })
	return state, err
}

// load scans, reads what changed and puts the State together. dirty says by its real path that a file changed,
// whatever its stamps say.
func (f *Folder) load(ctx context.Context, s *scan, dirty func(path string) bool) (state *State, changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, root := range f.roots {
		s.root(root)
	}
	files := make([]*file, 0, len(s.files))
	var fresh []*document
	docs := make(map[documentKey]*document, len(f.docs))
	for _, at := range s.files {
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		next := f.files[at.path]
		if next == nil || dirty(at.real) || !next.unchanged(at) {
			if next = f.readFile(at, docs, &fresh); next == nil {
				continue // gone since the directory was read
			}
		}
		files = append(files, next)
		for _, p := range next.pieces {
			docs[p.doc.key] = p.doc
		}
	}
	f.parser.parseAll(ctx, fresh)
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	f.files, f.docs = make(map[string]*file, len(files)), docs
	for _, file := range files {
		f.files[file.path] = file
	}
	state, changed = f.assemble(files, s)
	return state, changed, nil
}

// unnamed returns what the last load found of a file that lies where it did, unless a notification named it.
func (f *Folder) unnamed(path string, named func(real string) bool) (fs.FileInfo, bool) {
	last := f.files[path] // Watch's goroutine holds mu while it scans
	if last == nil || last.info == nil || named(last.real) {
		return nil, false
	}
	return last.info, true
}

// unchanged reports whether the file is the one that was read, by its stamps.
func (f *file) unchanged(now found) bool {
	return f.info != nil && f.real == now.real && os.SameFile(f.info, now.info) && f.info.Size() == now.info.Size() &&
		f.info.ModTime().Equal(now.info.ModTime()) && f.info.Mode() == now.info.Mode() &&
		f.read.Sub(f.info.ModTime()) > racyWindow
}

// readFile reads a file and splits it. Documents that were not there before are added to fresh, still to be parsed.
func (f *Folder) readFile(at found, docs map[documentKey]*document, fresh *[]*document) *file {
	next := &file{path: at.path, real: at.real, info: at.info, read: time.Now()}
	text, err := readBounded(at.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		next.info, next.hold = nil, true
		next.fault = &fault{reason: problem.Unreadable, message: fmt.Sprintf("cannot be read: %v", cause(err))}
		return next
	case len(bytes.TrimSpace(text)) == 0:
		// Editors empty a file before they write it. A file that is meant to be empty can be deleted, or hold a comment.
		next.hold = true
		return next
	}
	split, err := manifest.Split(text, strings.EqualFold(filepath.Ext(at.path), ".json"))
	if err != nil {
		next.hold = true
		next.fault = &fault{line: 1, reason: problem.Unparsable, message: err.Error()}
		if e, ok := errors.AsType[*manifest.Error](err); ok {
			next.fault.line, next.fault.message = max(e.Line, 1), e.Message
		}
	}
	for _, d := range split {
		doc := f.docs[documentKey{string(d.Text), d.JSON}]
		if doc == nil {
			doc = docs[documentKey{string(d.Text), d.JSON}]
		}
		if doc == nil {
			// The key is a copy of its own: a view would keep the whole file for one document's sake.
			doc = &document{key: documentKey{string(d.Text), d.JSON}}
			*fresh = append(*fresh, doc)
		}
		docs[doc.key] = doc
		next.pieces = append(next.pieces, piece{doc, d.Line})
	}
	return next
}

func readBounded(path string) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > manifest.MaxFileBytes {
		return nil, fmt.Errorf("file is too large: %d bytes, the limit is %d; split it", info.Size(), int64(manifest.MaxFileBytes))
	}
	var b bytes.Buffer
	b.Grow(int(info.Size()) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(f, manifest.MaxFileBytes+1)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// cause takes the path out of an error that is reported beside it.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
