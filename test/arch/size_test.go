// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	fileLines, testFileLines = 400, 600
	funcLines                = 60
	parameters               = 4
	licence                  = "// SPDX-License-Identifier: Apache-2.0\n"
)

func TestFilesAreSmall(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range append(append(p.GoFiles, p.TestGoFiles...), p.XTestGoFiles...) {
			path := filepath.Join(p.Dir, name)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(src), "Code generated ") && strings.Contains(string(src), "DO NOT EDIT") && !strings.HasSuffix(name, "_test.go") {
				continue
			}
			checkFile(t, p.room()+"/"+name, string(src))
		}
	}
}

func checkFile(t *testing.T, name, src string) {
	if !strings.HasPrefix(src, licence) {
		t.Errorf("%s does not begin with its licence", name)
	}
	most := fileLines
	if strings.HasSuffix(name, "_test.go") {
		most = testFileLines
	}
	if n := strings.Count(src, "\n"); n > most {
		t.Errorf("%s has %d lines, the most is %d", name, n, most)
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > funcLines && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s: %s has %d lines, the most is %d", name, fn.Name.Name, n, funcLines)
		}
		if n := fn.Type.Params.NumFields(); n > parameters {
			t.Errorf("%s: %s has %d parameters, the most is %d", name, fn.Name.Name, n, parameters)
		}
	}
}
