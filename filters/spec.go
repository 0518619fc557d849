package filters

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Shape is what makes a kind of filter out of its payload's type C and the compiled form F of it.
type Shape[C, F any] struct {
	Kind  string
	Phase Phase
	// Compile checks a config and compiles it.
	Compile func(C) (F, error)
	// Filter makes the filter of one chain.
	Filter func(F, *Builder) Filter
	// Clusters names the clusters that the filter sends requests to; it may be nil.
	Clusters func(C) []string
	// Describe says in a few words what a config, here with its compiled form, does.
	Describe func(C, F) string
}

// Spec returns the Spec of the kind.
func (s Shape[C, F]) Spec() Spec {
	open := func(payload []byte) (c C, f F, err error) {
		if c, err = Decode[C](payload); err == nil {
			f, err = s.Compile(c)
		}
		return c, f, err
	}
	var clusters func(payload []byte) []string
	if s.Clusters != nil {
		clusters = func(payload []byte) []string {
			c, _, err := open(payload)
			if err != nil {
				return nil
			}
			return s.Clusters(c)
		}
	}
	return Spec{
		Clusters: clusters,

		Kind:  s.Kind,
		Phase: s.Phase,
		Validate: func(payload []byte) error {
			_, _, err := open(payload)
			return err
		},
		Build: func(payload []byte, b *Builder) (Filter, error) {
			_, f, err := open(payload)
			if err != nil {
				return nil, err
			}
			return s.Filter(f, b), nil
		},
		Describe: func(payload []byte) string {
			c, f, err := open(payload)
			if err != nil {
				return ""
			}
			return s.Describe(c, f)
		},
	}
}

// Decode opens a payload strictly: unknown fields, and anything after the value, are errors. Filter packages use it.
func Decode[T any](payload []byte) (T, error) {
	var v T
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, fmt.Errorf("payload: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("payload: something follows the JSON value")
	}
	return v, nil
}

// Encode is the inverse of Decode. Configs are plain data; one that does not marshal is a bug.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("filters: a filter config does not marshal: " + err.Error())
	}
	return b
}
