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

	// known, when set, returns what is known of a regular file that no notification named, so that it need not be looked at.
	known func(path string) (fs.FileInfo, bool)

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
		if real, ok := s.resolve(path); ok {
			s.dir(path, real)
		}
	case info.Mode().IsRegular():
		if real, ok := s.resolve(path); ok {
			s.notify(filepath.Dir(real), filepath.Base(real))
			s.file(path, real, info)
		}
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

// resolve returns the real path of one that may lead through symbolic links.
func (s *scan) resolve(path string) (real string, ok bool) {
	real, err := realPath(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.fail(path, err)
	}
	return real, err == nil
}

// first reports whether the real path is reached for the first time.
func (s *scan) first(real string) bool {
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	if s.seen[real] {
		return false
	}
	s.seen[real] = true
	return true
}

func (s *scan) dir(path, real string) {
	if !s.first(real) {
		return
	}
	s.notify(real, "")
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
		path, real := filepath.Join(path, e.Name()), filepath.Join(real, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			s.link(path)
		case e.IsDir():
			s.dir(path, real)
		case e.Type().IsRegular() && manifestName(path):
			// The common case, thousands of times: at most one look at the file and none at the way to it.
			if info, err := s.info(path, e); err == nil {
				s.file(path, real, info)
			} else if !errors.Is(err, fs.ErrNotExist) {
				s.fail(path, err)
			}
		}
	}
}

func (s *scan) info(path string, e fs.DirEntry) (fs.FileInfo, error) {
	if s.known != nil {
		if info, ok := s.known(path); ok {
			return info, nil
		}
	}
	return e.Info()
}

// link follows a symbolic link. What it leads to may change without a change in its own directory.
func (s *scan) link(path string) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Gone since the directory was read, or a link that leads nowhere.
		if manifestName(path) {
			if _, err := os.Lstat(path); err == nil {
				s.fail(path, errors.New("symbolic link leads nowhere"))
			}
		}
	case err != nil:
		s.fail(path, err)
	case info.IsDir():
		if real, ok := s.resolve(path); ok {
			s.dir(path, real)
		}
	case info.Mode().IsRegular() && manifestName(path):
		if real, ok := s.resolve(path); ok {
			s.notify(filepath.Dir(real), filepath.Base(real))
			s.file(path, real, info)
		}
	}
}

func (s *scan) file(path, real string, info fs.FileInfo) {
	if s.full || !s.first(real) {
		return
	}
	if len(s.files) == MaxFiles {
		s.full = true
		s.fail(path, fmt.Errorf("more than %d files, the rest is not read", MaxFiles))
		return
	}
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
