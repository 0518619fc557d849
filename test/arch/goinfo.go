package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "gatehouse.dev/gatehouse"

// pkg is what `go list` says of a package.
type pkg struct {
	Dir        string
	ImportPath string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// name is the import path below the module's, "." for the root.
func (p pkg) name() string {
	name, ok := ours(p.ImportPath)
	if !ok {
		return p.ImportPath
	}
	return name
}

// ours returns the path of a package of this module below the module's own.
func ours(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// packages lists the packages of the module at root that have Go files besides tests.
func packages(root string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,GoFiles,Imports,Deps", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("go list: %w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case err == io.EOF:
			return list, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		case len(p.GoFiles) > 0:
			list = append(list, p)
		}
	}
}

// source is a package's parsed files, tests excluded.
type source struct {
	fset  *token.FileSet
	files []*ast.File
	// uses says which declaration a name stands for; names of other packages are not resolved.
	uses  map[*ast.Ident]types.Object
	scope *types.Scope
}

// parse reads a package's files and resolves the names that the package itself declares.
func parse(p pkg) (*source, error) {
	s := &source{fset: token.NewFileSet(), uses: map[*ast.Ident]types.Object{}}
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(s.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, file)
	}
	// Imports are left unresolved, which makes errors by the dozen and still tells a package variable from a local one.
	conf := types.Config{Error: func(error) {}, Importer: noImports{}}
	checked, _ := conf.Check(p.ImportPath, s.fset, s.files, &types.Info{Uses: s.uses})
	s.scope = checked.Scope()
	return s, nil
}

type noImports struct{}

// Import fails: see parse.
func (noImports) Import(path string) (*types.Package, error) {
	return nil, fmt.Errorf("%s is not looked at", path)
}

// at says where a node stands, relative to root.
func (s *source) at(root string, node ast.Node) string {
	position := s.fset.Position(node.Pos())
	if rel, err := filepath.Rel(root, position.Filename); err == nil {
		position.Filename = rel
	}
	return fmt.Sprintf("%s:%d", position.Filename, position.Line)
}

// inits returns the package's init functions.
func (s *source) inits() []ast.Node {
	var list []ast.Node
	for decl := range s.decls() {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			list = append(list, f)
		}
	}
	return list
}

func (s *source) decls() func(yield func(ast.Decl) bool) {
	return func(yield func(ast.Decl) bool) {
		for _, file := range s.files {
			for _, decl := range file.Decls {
				if !yield(decl) {
					return
				}
			}
		}
	}
}

// packageVars returns the declarations of package variables, "_" excluded.
func (s *source) packageVars() []*ast.ValueSpec {
	var list []*ast.ValueSpec
	for decl := range s.decls() {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.VAR {
			continue
		}
		for _, spec := range group.Specs {
			if v := spec.(*ast.ValueSpec); v.Names[0].Name != "_" {
				list = append(list, v)
			}
		}
	}
	return list
}

// writes returns the places where a function assigns to a package variable, to a part of one, or takes its address.
func (s *source) writes() []ast.Node {
	var list []ast.Node
	check := func(at ast.Node, target ast.Expr) {
		if id := root(target); id != nil {
			if v, ok := s.uses[id].(*types.Var); ok && v.Parent() == s.scope {
				list = append(list, at)
			}
		}
	}
	for decl := range s.decls() {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, target := range n.Lhs {
						check(n, target)
					}
				}
			case *ast.IncDecStmt:
				check(n, n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					check(n, n.X)
				}
			}
			return true
		})
	}
	return list
}

// root returns the variable that an assignable expression is a part of.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// locks reports whether a variable's type or value is one that exists to be changed: a lock, a counter, a concurrent map.
func locks(v *ast.ValueSpec) bool {
	found := false
	look := func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok {
				stateful := id.Name == "sync" && sel.Sel.Name != "Pool" && !strings.HasPrefix(sel.Sel.Name, "OnceValue")
				found = found || stateful || id.Name == "atomic"
			}
		}
		return true
	}
	if v.Type != nil {
		ast.Inspect(v.Type, look)
	}
	for _, value := range v.Values {
		if lit, ok := value.(*ast.CompositeLit); ok && lit.Type != nil {
			ast.Inspect(lit.Type, look)
		}
	}
	return found
}

// stringConsts returns the string constants of a package that have the given type, in the order of declaration.
func (s *source) stringConsts(typeName string) []string {
	var list []string
	for decl := range s.decls() {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			v := spec.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typeName {
				continue
			}
			for _, value := range v.Values {
				if lit, ok := value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					list = append(list, strings.Trim(lit.Value, "\"`"))
				}
			}
		}
	}
	return list
}
