// Package manifest reads files of Kubernetes objects as text: it splits a file into documents, decodes a document to JSON as kubectl
// does, and finds the line on which a field stands. It knows nothing of kinds or of what an object means.
//
// A file is a stream of YAML documents or of JSON values; a JSON array is the stream of its elements:
//
//	file     = yaml | json
//	yaml     = document *( separator document )
//	separator = line that is "---", or starts with "---" and a space or tab     ; YAML 1.2, 9.1.2
//	          | line that is "..." or starts with "..." and a space or tab      ; document end, 9.1.4
//	json     = *( value | "[" value *( "," value ) "]" )
//
// By YAML's rules a separator at the start of a line ends a document wherever it stands, also within a block scalar, so that
// splitting needs no parser. It is one scan for line starts, since every change of a file splits all of it again.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The bounds. They are far above what people write and well below what harms the process.
const (
	// MaxFileBytes bounds a file.
	MaxFileBytes = 64 << 20
	// MaxDocumentBytes bounds a document with its aliases expanded. A List of many objects is one document.
	MaxDocumentBytes = 32 << 20
	// MaxDepth bounds how deep collections nest.
	MaxDepth = 256
)

// Document is one document of a file.
type Document struct {
	// Text is the document, a view into the file's bytes.
	Text []byte
	// Line is where Text starts, counted from 1.
	Line int
	// JSON is set for a document that is to be decoded as JSON.
	JSON bool
}

// Error is what is wrong with a text. Line is counted from the start of the text; 0 means unknown.
type Error struct {
	Line    int
	Message string
}

// Error returns "line N: message".
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Message)
}

// Split cuts a file into its documents; those that hold only space and comments are left out. A file that starts with a brace or
// bracket, or whose name ends in .json, is JSON; if it does not parse as JSON and isJSON is not set, it is taken as YAML.
// On an error the documents before it are returned too.
func Split(file []byte, isJSON bool) ([]Document, error) {
	if len(file) > MaxFileBytes {
		return nil, &Error{Message: fmt.Sprintf("file is too large: %d bytes, the limit is %d; split it", len(file), MaxFileBytes)}
	}
	file = bytes.TrimPrefix(file, []byte("\xef\xbb\xbf"))
	if i := invalidUTF8(file); i >= 0 {
		return nil, &Error{Line: 1 + bytes.Count(file[:i], []byte{'\n'}), Message: "text is not UTF-8; save the file as UTF-8"}
	}
	head := bytes.TrimLeft(file, " \t\r\n")
	if isJSON || (len(head) > 0 && (head[0] == '{' || head[0] == '[')) {
		docs, err := splitJSON(file)
		if err == nil || isJSON {
			return docs, err
		}
	}
	return splitYAML(file), nil
}

func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// splitYAML looks at nothing but the lines that start with a separator's first byte.
func splitYAML(file []byte) []Document {
	var docs []Document
	start, startLine, line := 0, 1, 1
	emit := func(end int) {
		if text := file[start:end]; !blank(text) {
			docs = append(docs, Document{Text: text, Line: startLine})
		}
	}
	for i := 0; i < len(file); {
		end := len(file)
		if n := bytes.IndexByte(file[i:], '\n'); n >= 0 {
			end = i + n + 1
		}
		if rest, ok := separator(file[i:end]); ok {
			emit(i)
			// "--- {a: b}" has content on the separator's own line: the document starts with it.
			start, startLine = i, line
			if blank(rest) {
				start, startLine = end, line+1
			}
		}
		i, line = end, line+1
	}
	emit(len(file))
	return docs
}

// separator reports whether the line separates documents, and what follows on it.
func separator(line []byte) (rest []byte, ok bool) {
	if len(line) < 3 || (line[0] != '-' && line[0] != '.') || line[1] != line[0] || line[2] != line[0] {
		return nil, false
	}
	rest = line[3:]
	if len(rest) > 0 && !bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])) {
		return nil, false
	}
	return rest, true
}

// blank reports whether the text holds only space, comments and YAML directives.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// splitJSON cuts a stream of JSON values; the elements of a top-level array are values of the stream.
func splitJSON(file []byte) ([]Document, error) {
	var docs []Document
	lines := lineCounter{text: file}
	d := json.NewDecoder(bytes.NewReader(file))
	for {
		var raw json.RawMessage
		switch err := d.Decode(&raw); {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			offset := d.InputOffset()
			if e, ok := errors.AsType[*json.SyntaxError](err); ok {
				offset = max(offset, min(e.Offset, int64(len(file))))
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				offset = int64(len(file))
			}
			return docs, &Error{Line: lines.at(offset), Message: "json: " + err.Error()}
		}
		start := d.InputOffset() - int64(len(raw))
		if raw[0] != '[' {
			docs = append(docs, Document{Text: raw, Line: lines.at(start), JSON: true})
			continue
		}
		elements := json.NewDecoder(bytes.NewReader(raw))
		if _, err := elements.Token(); err != nil {
			return docs, &Error{Line: lines.at(start), Message: err.Error()}
		}
		for elements.More() {
			var element json.RawMessage
			if err := elements.Decode(&element); err != nil {
				return docs, &Error{Line: lines.at(start), Message: err.Error()}
			}
			at := start + elements.InputOffset() - int64(len(element))
			docs = append(docs, Document{Text: element, Line: lines.at(at), JSON: true})
		}
	}
}

// lineCounter turns offsets into lines, quickly when they grow.
type lineCounter struct {
	text   []byte
	offset int64
	line   int
}

func (c *lineCounter) at(offset int64) int {
	if offset < c.offset {
		c.offset, c.line = 0, 0
	}
	c.line += bytes.Count(c.text[c.offset:offset], []byte{'\n'})
	c.offset = offset
	return c.line + 1
}

// oneLine joins a library's message of several lines.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
