package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// Decode returns the document as JSON, by the rules of kubectl (YAML 1.1: `on` is true), except that a key that stands twice is
// always an error. Then it returns the JSON that kubectl would have used beside the error, so that the object can be named.
func Decode(text []byte, isJSON bool) ([]byte, error) {
	if len(text) > MaxDocumentBytes {
		return nil, &Error{Message: fmt.Sprintf("document is too large: %d bytes, the limit is %d; split it", len(text), MaxDocumentBytes)}
	}
	if isJSON {
		return decodeJSON(text)
	}
	if err := checkNesting(text); err != nil {
		return nil, err
	}
	raw, err := yaml.YAMLToJSONStrict(text)
	if err == nil {
		return raw, nil
	}
	located := locate(err)
	if strings.Contains(err.Error(), "already set in map") {
		if raw, loose := yaml.YAMLToJSON(text); loose == nil {
			return raw, located
		}
	}
	return nil, located
}

func decodeJSON(text []byte) ([]byte, error) {
	if deepest(text) > MaxDepth {
		return nil, &Error{Message: fmt.Sprintf("nested deeper than %d levels", MaxDepth)}
	}
	// A key that stands twice is found by the strict decoding that follows.
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		e := &Error{Message: "json: " + err.Error()}
		if s, ok := errors.AsType[*json.SyntaxError](err); ok {
			e.Line = 1 + bytes.Count(text[:min(s.Offset, int64(len(text)))], []byte{'\n'})
		}
		return nil, e
	}
	return text, nil
}

// deepest counts brackets outside of strings.
func deepest(text []byte) int {
	depth, most, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			most = max(most, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return most
}

// checkNesting refuses what would cost more than its size promises: aliases that expand to more than MaxDocumentBytes ("billion
// laughs"), and nesting that a recursive walk would have to follow. The node tree is built without expanding, and only for a text
// that could offend.
func checkNesting(text []byte) error {
	aliases := bytes.IndexByte(text, '*') >= 0 && bytes.IndexByte(text, '&') >= 0
	if !aliases && !couldNest(text) {
		return nil
	}
	var node yamlv3.Node
	if err := yamlv3.Unmarshal(text, &node); err != nil {
		return nil // the decoder that follows finds the fault in its own words
	}
	size, err := expanded(&node, map[*yamlv3.Node]int{}, 0)
	if err == nil && size > MaxDocumentBytes {
		err = &Error{Line: node.Line, Message: fmt.Sprintf("document is too large: its aliases expand to more than %d bytes", MaxDocumentBytes)}
	}
	return err
}

// couldNest reports whether the text has enough brackets, or a line with enough indentation, to nest deeper than MaxDepth. A block
// collection within another is indented by at least one column, and each "- " or "? " on a line opens one more.
func couldNest(text []byte) bool {
	if bytes.Count(text, []byte{'['})+bytes.Count(text, []byte{'{'}) > MaxDepth/2 {
		return true
	}
	for line := range bytes.Lines(text) {
		if len(line)-len(bytes.TrimLeft(line, " -?")) > MaxDepth/2 {
			return true
		}
	}
	return false
}

// expanded returns the size of the node with its aliases expanded, at most somewhat above MaxDocumentBytes. Each anchored node is
// measured once.
func expanded(n *yamlv3.Node, known map[*yamlv3.Node]int, depth int) (int, error) {
	if depth > MaxDepth {
		return 0, &Error{Line: n.Line, Message: fmt.Sprintf("nested deeper than %d levels", MaxDepth)}
	}
	if n.Kind == yamlv3.AliasNode {
		size, ok := known[n.Alias]
		if !ok {
			return 0, &Error{Line: n.Line, Message: fmt.Sprintf("alias %q stands within its own anchor", n.Value)}
		}
		return size, nil
	}
	size := len(n.Value) + 2
	for _, child := range n.Content {
		more, err := expanded(child, known, depth+1)
		if err != nil {
			return 0, err
		}
		size = min(size+more, MaxDocumentBytes+1)
	}
	if n.Anchor != "" {
		known[n] = size
	}
	return size, nil
}

// locate takes the line out of a YAML library's message: "error converting YAML to JSON: yaml: line 3: did not find ...".
func locate(err error) *Error {
	message := oneLine(err.Error())
	message = strings.TrimPrefix(message, "error converting YAML to JSON: ")
	message = strings.ReplaceAll(message, "yaml: unmarshal errors: ", "yaml: ")
	at := regexp.MustCompile(`line (\d+): `).FindStringSubmatchIndex(message)
	if at == nil {
		return &Error{Message: message}
	}
	line, convErr := strconv.Atoi(message[at[2]:at[3]])
	if convErr != nil {
		return &Error{Message: message}
	}
	return &Error{Line: line, Message: message[:at[0]] + message[at[1]:]}
}
