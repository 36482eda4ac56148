package registry

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// NPM is a registry's document and tarball, below /npm/.
func NPM() Files {
	tgz := tarball(
		entry{name: "package/package.json", text: `{"name": "greet", "version": "1.0.0", "main": "greet.js"}`},
		entry{name: "package/greet.js", text: `module.exports = "greetings by npm";`},
	)
	sum := sha512.Sum512([]byte(tgz))
	return Files{
		"/npm/greet": encode(map[string]any{
			"name": "greet", "dist-tags": map[string]string{"latest": "1.0.0"},
			"versions": map[string]any{"1.0.0": map[string]any{"name": "greet", "version": "1.0.0", "dist": map[string]string{
				"tarball":   "https://" + Host + "/npm/greet-1.0.0.tgz",
				"integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
			}}},
		}),
		"/npm/greet-1.0.0.tgz": tgz,
	}
}

// PyPI is a simple index (PEP 503) with a wheel (PEP 427), below /pypi/.
func PyPI() Files {
	const wheel, info = "greet-1.0.0-py3-none-any.whl", "greet-1.0.0.dist-info/"
	whl := zipped(
		entry{name: "greet.py", text: "hello = 'greetings by pip'\n"},
		entry{name: info + "METADATA", text: "Metadata-Version: 2.1\nName: greet\nVersion: 1.0.0\n"},
		entry{name: info + "WHEEL", text: "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		entry{name: info + "RECORD", text: "greet.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n"},
	)
	return Files{
		"/pypi/simple/greet/": fmt.Sprintf("<!DOCTYPE html><html><body><a href=\"/pypi/%s#sha256=%x\">%s</a></body></html>",
			wheel, sha256.Sum256([]byte(whl)), wheel),
		"/pypi/" + wheel: whl,
	}
}

// GoModule is the path of the module that Go serves.
const GoModule = "lab.test/greet"

// Go is a module proxy (GOPROXY protocol, go.dev/ref/mod#goproxy-protocol), below /go/.
func Go() Files {
	const mod, at = "module " + GoModule + "\n\ngo 1.18\n", "/go/" + GoModule + "/@v/"
	return Files{
		at + "list":        "v1.0.0\n",
		at + "v1.0.0.info": `{"Version": "v1.0.0", "Time": "2024-01-01T00:00:00Z"}`,
		at + "v1.0.0.mod":  mod,
		at + "v1.0.0.zip": zipped(
			entry{name: GoModule + "@v1.0.0/go.mod", text: mod},
			entry{name: GoModule + "@v1.0.0/greet.go", text: "package greet\n\nconst Hello = \"greetings by go\"\n"},
		),
	}
}

// Cargo is what a registry's index leads to, below /crates/, and the index: files of a repository, with crates of host.
func Cargo(host string) (served, index Files) {
	crate := tarball(
		entry{name: "greet-1.0.0/Cargo.toml", text: "[package]\nname = \"greet\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"},
		entry{name: "greet-1.0.0/src/lib.rs", text: "pub const HELLO: &str = \"greetings by cargo\";\n"},
	)
	return Files{"/crates/greet-1.0.0.crate": crate}, Files{
		"config.json": encode(map[string]string{"dl": "https://" + host + "/crates/{crate}-{version}.crate"}),
		"gr/ee/greet": encode(map[string]any{
			"name": "greet", "vers": "1.0.0", "deps": []string{}, "cksum": fmt.Sprintf("%x", sha256.Sum256([]byte(crate))),
			"features": map[string]any{}, "yanked": false,
		}) + "\n",
	}
}

// Apt is a flat repository of two packages, one of which depends on the other, below /debian/.
func Apt() Files {
	files, index := Files{}, ""
	for _, p := range []struct {
		name, depends, path, text string
		mode                      int64
	}{
		{"greet", "Depends: greet-data\n", "./usr/bin/greet", "#!/bin/sh\ncat /usr/share/greet/hello\n", 0o755},
		{"greet-data", "", "./usr/share/greet/hello", "greetings by apt\n", 0o644},
	} {
		control := "Package: " + p.name + "\nVersion: 1.0.0\nArchitecture: all\nMaintainer: lab <lab@lab.test>\n" + p.depends + "Description: greetings\n"
		var folders []entry
		for i, c := range p.path {
			if c == '/' && i > 1 {
				folders = append(folders, entry{name: p.path[:i+1], mode: 0o755})
			}
		}
		deb := archive(
			entry{name: "debian-binary", text: "2.0\n"},
			entry{name: "control.tar.gz", text: tarball(entry{name: "./control", text: control})},
			entry{name: "data.tar.gz", text: tarball(append(folders, entry{name: p.path, text: p.text, mode: p.mode})...)},
		)
		file := p.name + "_1.0.0_all.deb"
		files["/debian/"+file] = deb
		index += control + fmt.Sprintf("Filename: ./%s\nSize: %d\nSHA256: %x\n\n", file, len(deb), sha256.Sum256([]byte(deb)))
	}
	files["/debian/Packages"] = index
	files["/debian/Release"] = fmt.Sprintf("Suite: lab\nDate: Mon, 01 Jan 2024 00:00:00 UTC\nSHA256:\n %x %d Packages\n", sha256.Sum256([]byte(index)), len(index))
	return files
}

// archive is one of ar(5).
func archive(entries ...entry) string {
	var b strings.Builder
	b.WriteString("!<arch>\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", e.name, 0, 0, 0, "100644", len(e.text), e.text)
		if len(e.text)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// encode is JSON; maps of strings have one.
func encode(v any) string {
	b, err := json.Marshal(v)
	must(err)
	return string(b)
}
