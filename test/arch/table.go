package arch

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A table is a Markdown pipe table: rows of cells, the header's cells being the first row.
type table [][]string

// tables returns the tables of a page.
func tables(page string) []table {
	var list []table
	inTable := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			inTable = false
			continue
		case strings.Trim(line, "|-: ") == "": // the line under the header
			continue
		case !inTable:
			inTable = true
			list = append(list, nil)
		}
		last := &list[len(list)-1]
		*last = append(*last, cells(line))
	}
	return list
}

func cells(line string) []string {
	list := strings.Split(strings.Trim(line, "|"), "|")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// tableOf returns the one table whose header begins with the given words.
func tableOf(page string, header ...string) (table, error) {
	for _, t := range tables(page) {
		if len(t[0]) >= len(header) && slices.Equal(t[0][:len(header)], header) {
			return t[1:], nil
		}
	}
	return nil, fmt.Errorf("the page has no table with the columns %q", header)
}

// code returns what stands between backquotes in a cell.
func code(cell string) []string {
	var list []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		list = append(list, m[1])
	}
	return list
}

// matches reports whether a pattern names a package: "x" is x, "x/*" the packages directly below x, "x/..." x and everything below.
func matches(pattern, pkg string) bool {
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == root || strings.HasPrefix(pkg, root+"/")
	}
	if parent, ok := strings.CutSuffix(pattern, "/*"); ok {
		name, below := strings.CutPrefix(pkg, parent+"/")
		return below && !strings.Contains(name, "/")
	}
	return pattern == pkg
}

func anyMatches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

// exactness orders patterns that match one package: the package itself before "/*" before "/...", and a longer one before a shorter.
func exactness(pattern string) int {
	switch {
	case strings.HasSuffix(pattern, "/..."):
		return len(pattern)
	case strings.HasSuffix(pattern, "/*"):
		return 1000 + len(pattern)
	}
	return 2000
}

// A room is one row of the import table.
type room struct {
	pattern string
	planned bool
	// any allows every import of ours.
	any bool
	may []string
}

// rooms reads the import table.
func rooms(page string) ([]room, error) {
	rows, err := tableOf(page, "package", "what lives there", "may import")
	if err != nil {
		return nil, err
	}
	var list []room
	for _, row := range rows {
		patterns, may := code(row[0]), code(row[2])
		if len(patterns) != 1 {
			return nil, fmt.Errorf("row %q: name exactly one package in the first column", row[0])
		}
		if len(may) == 0 && row[2] != "none" && row[2] != "any" {
			return nil, fmt.Errorf("row %q: %q is neither a list of packages nor none nor any", row[0], row[2])
		}
		list = append(list, room{pattern: patterns[0], planned: strings.Contains(row[0], "*planned*"), any: row[2] == "any", may: may})
	}
	return list, nil
}

// roomOf returns the most exact room that a package belongs to.
func roomOf(list []room, pkg string) (room, bool) {
	best := room{}
	for _, r := range list {
		if matches(r.pattern, pkg) && (best.pattern == "" || exactness(r.pattern) > exactness(best.pattern)) {
			best = r
		}
	}
	return best, best.pattern != ""
}

// allows reports whether a package of this room may import another one of ours.
func (r room) allows(pkg string) bool {
	within := strings.HasSuffix(r.pattern, "/...") && matches(r.pattern, pkg)
	return r.any || within || anyMatches(r.may, pkg)
}

// A fence is one row of the table of imports that are not ours.
type fence struct {
	imports, only []string
}

// fences reads that table.
func fences(page string) ([]fence, error) {
	rows, err := tableOf(page, "import", "only in")
	if err != nil {
		return nil, err
	}
	var list []fence
	for _, row := range rows {
		f := fence{imports: code(row[0]), only: code(row[1])}
		if len(f.imports) == 0 || len(f.only) == 0 {
			return nil, fmt.Errorf("row %q: name imports and the packages that may have them", row[0])
		}
		list = append(list, f)
	}
	return list, nil
}
