package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gatehouse.dev/gatehouse/controller/problem"
)

// MaxFiles bounds the files of a Folder: who points it at / by mistake is told so.
const MaxFiles = 10000

// found is a file that is to be read.
type found struct {
	// path is as the user would write it; real is absolute and has no symbolic link in it.
	path, real string
	info       fs.FileInfo
}

// scan finds the files below the roots. A directory is read in lexical order, with its subdirectories; what starts with a dot is
// skipped, and so a ConfigMap mount's "..data" and "..2026_01_01" are reached only through the links that stand beside them. A file
// or directory that is reached twice counts once.
type scan struct {
	// watch, when set, is called with each directory before it is read, so that no change falls between. An empty name asks for
	// everything in the directory, another one for that entry alone.
	watch func(dir, name string)

	files []found
	// problems are of what cannot be read; whatever came from there before stays.
	problems []problem.Problem
	// held are the files and directories that cannot be read.
	held []string
	seen map[string]bool
	full bool
}

func (s *scan) root(path string) {
	s.notify(filepath.Dir(path), filepath.Base(path))
	info, err := os.Stat(path)
	switch {
	case err != nil:
		s.fail(path, err)
	case info.IsDir():
		s.dir(path)
	case info.Mode().IsRegular():
		s.file(path, info)
	default:
		s.fail(path, errors.New("neither a file nor a directory"))
	}
}

func (s *scan) notify(dir, name string) {
	if s.watch != nil {
		s.watch(dir, name)
	}
}

// fail records what cannot be read.
func (s *scan) fail(path string, err error) {
	s.held = append(s.held, path)
	cause := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		cause = e.Err
	}
	s.problems = append(s.problems, problem.Problem{File: path, Reason: problem.Unreadable, SetAside: "the file",
		Message: fmt.Sprintf("cannot be read: %v; what came from it before stays in use", cause)})
}

// first reports whether the path is reached for the first time.
func (s *scan) first(path string) (real string, ok bool) {
	real, err := realPath(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.fail(path, err)
		}
		return "", false
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	if s.seen[real] {
		return "", false
	}
	s.seen[real] = true
	return real, true
}

func (s *scan) dir(path string) {
	if _, ok := s.first(path); !ok {
		return
	}
	s.notify(path, "")
	list, err := os.ReadDir(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.fail(path, err)
		}
		return
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		s.entry(filepath.Join(path, e.Name()), e)
	}
}

func (s *scan) entry(path string, e fs.DirEntry) {
	if !e.IsDir() && e.Type()&fs.ModeSymlink == 0 && !manifestName(path) {
		return
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Gone since the directory was read, or a link that leads nowhere.
		if e.Type()&fs.ModeSymlink != 0 && manifestName(path) {
			if _, err := os.Lstat(path); err == nil {
				s.fail(path, errors.New("symbolic link leads nowhere"))
			}
		}
	case err != nil:
		s.fail(path, err)
	case info.IsDir():
		s.dir(path)
	case info.Mode().IsRegular() && manifestName(path):
		s.file(path, info)
	}
}

func (s *scan) file(path string, info fs.FileInfo) {
	if s.full {
		return
	}
	real, ok := s.first(path)
	if !ok {
		return
	}
	if len(s.files) == MaxFiles {
		s.full = true
		s.fail(path, fmt.Errorf("more than %d files, the rest is not read", MaxFiles))
		return
	}
	s.notify(filepath.Dir(real), filepath.Base(real))
	s.files = append(s.files, found{path: path, real: real, info: info})
}

// realPath returns the absolute path without symbolic links.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

func manifestName(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
