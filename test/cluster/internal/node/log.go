package node

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"
)

// logFile takes what a container writes and stamps each line with its time:
//
//	2026-01-02T15:04:05.678901234Z text
//
// Readers open the file by its path and learn from wait when there is more.
type logFile struct {
	path string

	mu      sync.Mutex // guards what follows
	file    *os.File   // nil once it is closed
	partial []byte     // the beginning of a line
	more    chan struct{}
}

func newLogFile(path string) (*logFile, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &logFile{path: path, file: file, more: make(chan struct{})}, nil
}

// Longest line that is kept whole.
const maxLine = 64 << 10

// Write never fails: a container is not to be stopped by what becomes of its log.
func (l *logFile) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, text...)
	var out []byte
	for {
		end := bytes.IndexByte(l.partial, '\n')
		if end < 0 && len(l.partial) < maxLine {
			break
		}
		line := l.partial
		if end >= 0 {
			line = l.partial[:end]
		}
		out = stamp(out, line)
		l.partial = l.partial[min(len(line)+1, len(l.partial)):]
	}
	l.put(out)
	return len(text), nil
}

func stamp(out, line []byte) []byte {
	return fmt.Appendf(out, "%s %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z"), line)
}

func (l *logFile) put(out []byte) {
	if len(out) == 0 || l.file == nil {
		return
	}
	_, _ = l.file.Write(out)
	close(l.more)
	l.more = make(chan struct{})
}

// Close ends the log; a line without an end gets one.
func (l *logFile) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return
	}
	if len(l.partial) > 0 {
		l.put(stamp(nil, l.partial))
	}
	l.file.Close()
	l.file = nil
	close(l.more)
}

// wait returns a channel that closes when more was written than there was at the time of the call, and whether that may still happen.
func (l *logFile) wait() (more <-chan struct{}, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.more, l.file != nil
}
