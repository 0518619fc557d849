package routing

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// maxProgram bounds what a pattern may expand to, in instructions. Matching costs up to program times input, and counted repetitions
// let a short pattern grow without end: (...){1000} of a pattern of MaxPattern bytes would take 100 MB.
const maxProgram = 5000

// pattern is a compiled regular expression that matches whole values. It is immutable and shared: by every condition of a table
// that has the same source and by the tables recompiled from it.
type pattern struct {
	source string
	re     *regexp.Regexp
	// prefix is a literal that every match begins with, "" when there is none. It rejects most requests without running re.
	prefix string
}

func (p *pattern) match(s string) bool {
	return strings.HasPrefix(s, p.prefix) && p.re.MatchString(s)
}

// patterns are the compiled expressions of one table by source.
type patterns struct {
	known map[string]*pattern
	// previous are those of the table before; only what is asked for again is taken over.
	previous map[string]*pattern
}

func (c *patterns) get(source string) (*pattern, error) {
	if p := c.known[source]; p != nil {
		return p, nil
	}
	p := c.previous[source]
	if p == nil {
		parsed, whole, err := parsePattern(source)
		if err != nil {
			return nil, err
		}
		re, err := regexp.Compile(whole)
		if err != nil {
			return nil, patternError(source, err)
		}
		p = &pattern{source: source, re: re, prefix: literalPrefix(parsed)}
	}
	if c.known == nil {
		c.known = make(map[string]*pattern)
	}
	c.known[source] = p
	return p, nil
}

// parsePattern checks an RE2 expression and returns it parsed, and as the expression that matches whole values only. An expression
// that passes compiles.
func parsePattern(source string) (parsed *syntax.Regexp, whole string, err error) {
	if source == "" {
		return nil, "", fmt.Errorf("regular expression is empty; give one that matches the whole value, or leave the condition out")
	}
	if len(source) > MaxPattern {
		return nil, "", fmt.Errorf("regular expression %.40q... is %d bytes long; at most %d are allowed", source, len(source), MaxPattern)
	}
	// It is parsed alone first: "a)(b" is only valid between the brackets added below.
	if parsed, err = syntax.Parse(source, syntax.Perl); err != nil {
		return nil, "", patternError(source, err)
	}
	if programSize(parsed) > maxProgram {
		return nil, "", fmt.Errorf("regular expression %.100q expands to more than %d instructions; use smaller repetition counts", source, maxProgram)
	}
	whole = "^(?:" + source + ")$"
	if _, err = syntax.Parse(whole, syntax.Perl); err != nil {
		// A quotation may be left open at the end of an expression ("a\Q.b") and would swallow the bracket.
		whole = "^(?:" + source + `\E)$`
		_, err = syntax.Parse(whole, syntax.Perl)
	}
	if err != nil {
		return nil, "", patternError(source, err)
	}
	return parsed, whole, nil
}

func patternError(source string, err error) error {
	return fmt.Errorf("regular expression %.100q is not valid RE2: %w", source, err)
}

// programSize estimates the number of instructions that an expression compiles to. It stops counting soon after maxProgram.
func programSize(re *syntax.Regexp) int {
	size := 1
	if re.Op == syntax.OpLiteral {
		size = len(re.Rune)
	}
	for _, sub := range re.Sub {
		size += programSize(sub)
		if size > maxProgram {
			return size
		}
	}
	if re.Op == syntax.OpRepeat {
		size *= max(re.Min, re.Max, 1)
	}
	return size
}

// literalPrefix returns the literal that every whole match of the expression begins with.
func literalPrefix(re *syntax.Regexp) string {
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	for len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
		parts = parts[1:]
	}
	if len(parts) == 0 || parts[0].Op != syntax.OpLiteral || parts[0].Flags&syntax.FoldCase != 0 {
		return ""
	}
	// U+FFFD also stands for bytes that are not UTF-8, which a comparison of bytes would not find.
	literal, _, _ := strings.Cut(string(parts[0].Rune), "\uFFFD")
	return literal
}
