#!/usr/bin/env python3
"""Walks the endpoints of OCI distribution-spec 1.1 over HTTP and checks every status, header and body the specification names.

conformance.py --bin FOLDER     starts FOLDER/hull-registry on a fresh folder
conformance.py --url http://…   asks a registry that runs (deletion allowed, no authentication)
"""
import argparse
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.parse

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": "sha256:" + hashlib.sha256(b"{}").hexdigest()}
URL = None


def digest(data, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["errors"][0]["code"]


class Case(unittest.TestCase):
    def setUp(self):
        self.repository = "conformance/" + self.id().rsplit(".", 1)[-1].lower().replace("_", "-")
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(URL).netloc, timeout=30)
        self.addCleanup(self.connection.close)

    def call(self, method, path, body=None, chunked=False, **headers):
        target = path if path.startswith("/") else f"/v2/{self.repository}/{path}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, target, body=iter([body]) if chunked else body, headers=headers, encode_chunked=chunked)
        return Answer(self.connection.getresponse())

    def expect(self, status, method, path, body=None, code=None, **headers):
        answer = self.call(method, path, body, **headers)
        self.assertEqual(answer.status, status, f"{method} {path}: {answer.body[:300]}")
        if code is not None:
            self.assertEqual(answer.code, code)
            self.assertEqual(answer.headers["Content-Type"].split(";")[0], "application/json")
            self.assertIsInstance(answer.json["errors"][0]["message"], str)
        return answer

    def location(self, answer):
        url = urllib.parse.urlsplit(urllib.parse.urljoin(URL, answer.headers["Location"]))
        return url.path + (f"?{url.query}" if url.query else "")

    def with_query(self, location, **query):
        return location + ("&" if "?" in location else "?") + urllib.parse.urlencode(query)

    def blob(self, data, algorithm="sha256"):
        started = self.expect(202, "POST", "blobs/uploads/", Content_Length="0")
        name = digest(data, algorithm)
        self.expect(201, "PUT", self.with_query(self.location(started), digest=name), data, Content_Type="application/octet-stream")
        return {"mediaType": "application/octet-stream", "digest": name, "size": len(data)}

    def manifest(self, reference=None, **fields):
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": [EMPTY], **fields}
        data = json.dumps(document).encode()
        answer = self.expect(201, "PUT", f"manifests/{reference or digest(data)}", data, Content_Type=document["mediaType"])
        self.assertEqual(answer.headers["Docker-Content-Digest"], digest(data))
        return data, answer


class Base(Case):
    def test_version_check(self):
        self.assertEqual(self.expect(200, "GET", "/v2/").headers["Docker-Distribution-API-Version"], "registry/2.0")

    def test_what_is_no_endpoint(self):
        self.expect(404, "GET", "/v2/x/y/z")
        self.assertIn(self.call("POST", "/v2/").status, (404, 405))


class Blobs(Case):
    def test_pull(self):
        data = os.urandom(1000)
        name = self.blob(data)["digest"]
        head = self.expect(200, "HEAD", f"blobs/{name}")
        self.assertEqual((head.headers["Content-Length"], head.headers["Docker-Content-Digest"], head.body), ("1000", name, b""))
        got = self.expect(200, "GET", f"blobs/{name}")
        self.assertEqual((got.body, got.headers["Docker-Content-Digest"]), (data, name))

    def test_unknown_and_malformed(self):
        absent = digest(b"absent")
        self.blob(b"the repository exists")
        self.expect(404, "GET", f"blobs/{absent}", code="BLOB_UNKNOWN")
        self.expect(404, "HEAD", f"blobs/{absent}")
        self.expect(404, "GET", f"/v2/conformance/nowhere/blobs/{absent}", code="NAME_UNKNOWN")
        for bad in ("sha256:xyz", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32, "sha512:" + "a" * 64):
            self.expect(400, "GET", f"blobs/{bad}", code="DIGEST_INVALID")
        self.expect(400, "GET", f"/v2/UPPER/blobs/{absent}", code="NAME_INVALID")
        self.expect(400, "GET", f"/v2/{'a' * 256}/blobs/{absent}", code="NAME_INVALID")

    def test_ranges(self):
        name = self.blob(b"0123456789")["digest"]
        for asked, want, where in (("0-0", b"0", "0-0"), ("2-4", b"234", "2-4"), ("7-", b"789", "7-9"), ("-3", b"789", "7-9"), ("5-99", b"56789", "5-9")):
            got = self.expect(206, "GET", f"blobs/{name}", Range=f"bytes={asked}")
            self.assertEqual((got.body, got.headers["Content-Range"]), (want, f"bytes {where}/10"))
        self.assertEqual(self.expect(416, "GET", f"blobs/{name}", Range="bytes=10-").headers["Content-Range"], "bytes */10")
        for ignored in ("bytes=4-2", "lines=1-2", "bytes=0-1,3-4", "bytes=x-"):
            self.assertEqual(self.expect(200, "GET", f"blobs/{name}", Range=ignored).body, b"0123456789")

    def test_delete(self):
        name = self.blob(b"goes")["digest"]
        self.expect(202, "DELETE", f"blobs/{name}")
        self.expect(404, "GET", f"blobs/{name}")
        self.expect(404, "DELETE", f"blobs/{name}", code="BLOB_UNKNOWN")


class Uploads(Case):
    def test_in_one_post(self):
        data = b"one post"
        done = self.expect(201, "POST", f"blobs/uploads/?digest={digest(data)}", data, Content_Type="application/octet-stream")
        self.assertEqual(self.expect(200, "GET", self.location(done)).body, data)
        self.expect(400, "POST", f"blobs/uploads/?digest={digest(b'other')}", data, code="DIGEST_INVALID")
        self.expect(400, "POST", "blobs/uploads/?digest=sha256:no", data, code="DIGEST_INVALID")

    def test_post_then_put(self):
        self.assertEqual(self.expect(200, "GET", f"blobs/{self.blob(b'monolithic')['digest']}").body, b"monolithic")

    def test_sha512(self):
        data = b"long digest"
        self.assertEqual(self.expect(200, "GET", f"blobs/{self.blob(data, 'sha512')['digest']}").body, data)
        name = digest(data + b"2", "sha512")
        self.expect(201, "POST", f"blobs/uploads/?digest={name}", data + b"2")
        self.assertEqual(self.expect(200, "HEAD", f"blobs/{name}").headers["Docker-Content-Digest"], name)

    def test_chunks(self):
        url = self.location(self.expect(202, "POST", "blobs/uploads/", Content_Length="0"))
        first = self.expect(202, "PATCH", url, b"01234", Content_Range="0-4", Content_Type="application/octet-stream")
        self.assertEqual(first.headers["Range"], "0-4")
        url = self.location(first)
        status = self.expect(204, "GET", url)
        self.assertEqual(status.headers["Range"], "0-4")
        self.location(status)
        for wrong in ("0-4", "3-7", "6-10"):
            self.assertEqual(self.expect(416, "PATCH", url, b"56789", Content_Range=wrong).headers["Range"], "0-4")
        self.expect(400, "PATCH", url, b"56789", Content_Range="bytes 5-9")
        self.expect(400, "PATCH", url, b"56789", Content_Range="5-8")
        second = self.expect(202, "PATCH", url, b"56789", Content_Range="5-9")
        self.assertEqual(second.headers["Range"], "0-9")
        url = self.location(second)
        name = digest(b"0123456789ab")
        self.expect(416, "PUT", self.with_query(url, digest=name), b"ab", Content_Range="11-12")
        done = self.expect(201, "PUT", self.with_query(url, digest=name), b"ab", Content_Range="10-11")
        self.assertEqual(self.expect(200, "GET", self.location(done)).body, b"0123456789ab")
        self.expect(404, "GET", url, code="BLOB_UPLOAD_UNKNOWN")

    def test_streamed_without_a_length(self):
        url = self.location(self.expect(202, "POST", "blobs/uploads/", Content_Length="0"))
        answer = self.call("PATCH", url, b"streamed", chunked=True, Transfer_Encoding="chunked")
        self.assertEqual((answer.status, answer.headers["Range"]), (202, "0-7"))
        self.expect(201, "PUT", self.with_query(self.location(answer), digest=digest(b"streamed")), Content_Length="0")

    def test_wrong_digest_ends_the_upload(self):
        url = self.location(self.expect(202, "POST", "blobs/uploads/", Content_Length="0"))
        self.expect(400, "PUT", self.with_query(url, digest=digest(b"promised")), b"sent", code="DIGEST_INVALID")
        self.expect(404, "HEAD", f"blobs/{digest(b'promised')}")
        self.expect(404, "HEAD", f"blobs/{digest(b'sent')}")

    def test_missing_and_malformed_digest(self):
        url = self.location(self.expect(202, "POST", "blobs/uploads/", Content_Length="0"))
        self.expect(400, "PUT", url, b"x", code="DIGEST_INVALID")
        self.expect(400, "PUT", self.with_query(url, digest="sha256:nope"), b"x", code="DIGEST_INVALID")

    def test_given_up(self):
        url = self.location(self.expect(202, "POST", "blobs/uploads/", Content_Length="0"))
        self.expect(204, "DELETE", url)
        self.expect(404, "GET", url, code="BLOB_UPLOAD_UNKNOWN")
        self.expect(404, "DELETE", url, code="BLOB_UPLOAD_UNKNOWN")

    def test_mount(self):
        name = self.blob(b"shared")["digest"]
        source, self.repository = self.repository, self.repository + "-target"
        mounted = self.expect(201, "POST", f"blobs/uploads/?mount={name}&from={source}", Content_Length="0")
        self.assertEqual(mounted.headers["Docker-Content-Digest"], name)
        self.assertEqual(self.expect(200, "GET", self.location(mounted)).body, b"shared")
        for query in (f"mount={digest(b'absent')}&from={source}", f"mount={name}&from=conformance/nowhere", f"mount={digest(b'absent')}"):
            started = self.expect(202, "POST", f"blobs/uploads/?{query}", Content_Length="0")
            self.expect(204, "DELETE", self.location(started))
        self.expect(400, "POST", f"blobs/uploads/?mount=sha256:bad&from={source}", Content_Length="0", code="DIGEST_INVALID")


class Manifests(Case):
    def setUp(self):
        super().setUp()
        self.blob(b"{}")

    def test_push_and_pull(self):
        data, put = self.manifest("v1")
        self.assertTrue(self.location(put).endswith((digest(data), "/v1")))
        for reference in ("v1", digest(data)):
            got = self.expect(200, "GET", f"manifests/{reference}", Accept=MANIFEST)
            self.assertEqual((got.body, got.headers["Content-Type"], got.headers["Docker-Content-Digest"]), (data, MANIFEST, digest(data)))
            head = self.expect(200, "HEAD", f"manifests/{reference}", Accept=MANIFEST)
            self.assertEqual((head.headers["Content-Length"], head.headers["Docker-Content-Digest"]), (str(len(data)), digest(data)))

    def test_bytes_are_kept_exactly(self):
        data = b'{ "schemaVersion" : 2,\n\t"mediaType":"' + MANIFEST.encode() + b'",\r\n"config":' + json.dumps(EMPTY).encode() + b',"layers":[] , "x":1.50}\n'
        self.expect(201, "PUT", "manifests/odd", data, Content_Type=MANIFEST)
        self.assertEqual(self.expect(200, "GET", "manifests/odd").body, data)

    def test_sha512_reference(self):
        data = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": [], "annotations": {"a": "512"}}).encode()
        name = digest(data, "sha512")
        self.expect(201, "PUT", f"manifests/{name}", data, Content_Type=MANIFEST)
        self.assertEqual(self.expect(200, "GET", f"manifests/{name}").headers["Docker-Content-Digest"], name)

    def test_four_mebibytes(self):
        data = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": [], "annotations": {"a": ""}}).encode()
        full = data[:-3] + b"x" * ((4 << 20) - len(data)) + data[-3:]
        self.expect(201, "PUT", "manifests/full", full, Content_Type=MANIFEST)
        self.assertEqual(self.expect(200, "GET", "manifests/full").body, full)
        self.expect(413, "PUT", "manifests/over", full[:-3] + b"x" + full[-3:], Content_Type=MANIFEST)

    def test_refused(self):
        data, _ = self.manifest("v1")
        self.expect(404, "GET", "manifests/none", code="MANIFEST_UNKNOWN")
        self.expect(404, "HEAD", "manifests/none")
        self.expect(404, "GET", f"manifests/{digest(b'none')}", code="MANIFEST_UNKNOWN")
        self.expect(404, "GET", "/v2/conformance/nowhere/manifests/v1", code="NAME_UNKNOWN")
        self.expect(400, "GET", "manifests/sha256:zz", code="DIGEST_INVALID")
        self.expect(400, "PUT", f"manifests/{digest(b'other')}", data, code="DIGEST_INVALID", Content_Type=MANIFEST)
        for bad in (b"", b"{", b"[]", b"null", b'{"schemaVersion":1}'):
            self.expect(400, "PUT", "manifests/bad", bad, code="MANIFEST_INVALID", Content_Type=MANIFEST)
        missing = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": [dict(EMPTY, digest=digest(b"not here"))]}).encode()
        self.expect(404, "PUT", "manifests/bad", missing, code="MANIFEST_BLOB_UNKNOWN", Content_Type=MANIFEST)
        self.assertIn(self.call("PUT", "manifests/.bad", data, Content_Type=MANIFEST).status, (400, 404))

    def test_delete_tag_then_manifest(self):
        data, _ = self.manifest("one")
        self.manifest("two")
        self.expect(202, "DELETE", "manifests/one")
        self.expect(404, "GET", "manifests/one")
        self.expect(200, "GET", "manifests/two")
        self.expect(202, "DELETE", f"manifests/{digest(data)}")
        self.expect(404, "GET", f"manifests/{digest(data)}", code="MANIFEST_UNKNOWN")
        self.expect(404, "GET", "manifests/two")
        self.expect(404, "DELETE", f"manifests/{digest(data)}", code="MANIFEST_UNKNOWN")

    def test_index(self):
        data, _ = self.manifest()
        entry = {"mediaType": MANIFEST, "size": len(data), "digest": digest(data), "platform": {"os": "linux", "architecture": "amd64"}}
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        self.expect(201, "PUT", "manifests/multi", index, Content_Type=INDEX)
        got = self.expect(200, "GET", "manifests/multi", Accept=INDEX)
        self.assertEqual((got.body, got.headers["Content-Type"]), (index, INDEX))


class Tags(Case):
    def setUp(self):
        super().setUp()
        self.blob(b"{}")
        for tag in ("c", "a", "b", "d"):
            self.manifest(tag)

    def tags(self, query=""):
        answer = self.expect(200, "GET", f"tags/list{query}")
        self.assertEqual(answer.json["name"], self.repository)
        return answer.json["tags"], answer.headers["Link"]

    def test_sorted(self):
        self.assertEqual(self.tags(), (["a", "b", "c", "d"], None))

    def test_pages(self):
        self.assertEqual(self.tags("?n=0"), ([], None))
        self.assertEqual(self.tags("?n=2&last=b"), (["c", "d"], None))
        self.assertEqual(self.tags("?last=c"), (["d"], None))
        self.assertEqual(self.tags("?last=bb"), (["c", "d"], None))
        self.assertEqual(self.tags("?n=9"), (["a", "b", "c", "d"], None))
        found, link = self.tags("?n=2")
        self.assertEqual(found, ["a", "b"])
        target = re.fullmatch(r'<([^>]+)>; ?rel="next"', link)[1]
        self.assertEqual(self.expect(200, "GET", self.location(Relative(target))).json["tags"], ["c", "d"])

    def test_unknown_repository(self):
        self.expect(404, "GET", "/v2/conformance/nowhere/tags/list", code="NAME_UNKNOWN")


class Relative:
    """What Case.location() needs of an answer."""

    def __init__(self, target):
        self.headers = {"Location": target}


class Referrers(Case):
    def setUp(self):
        super().setUp()
        self.blob(b"{}")
        self.subject = {"mediaType": MANIFEST, "size": 7, "digest": digest(self.id().encode())}  # is not there

    def referrers(self, query=""):
        answer = self.expect(200, "GET", f"referrers/{self.subject['digest']}{query}")
        self.assertEqual(answer.headers["Content-Type"], INDEX)
        self.assertEqual((answer.json["schemaVersion"], answer.json["mediaType"]), (2, INDEX))
        return answer.json["manifests"], answer.headers["OCI-Filters-Applied"]

    def test_none(self):
        self.assertEqual(self.referrers(), ([], None))
        self.expect(200, "GET", f"/v2/conformance/nowhere/referrers/{digest(b'x')}")
        self.expect(400, "GET", "referrers/sha256:zz", code="DIGEST_INVALID")

    def test_listed_and_filtered(self):
        one, put = self.manifest(subject=self.subject, artifactType="test/one", annotations={"k": "v"})
        self.assertEqual(put.headers["OCI-Subject"], self.subject["digest"])
        two, _ = self.manifest("tagged", subject=self.subject)
        found, _ = self.referrers()
        self.assertEqual({entry["digest"] for entry in found}, {digest(one), digest(two)})
        found, applied = self.referrers("?artifactType=test/one")
        self.assertEqual(applied, "artifactType")
        self.assertEqual(found, [{"mediaType": MANIFEST, "digest": digest(one), "size": len(one), "artifactType": "test/one", "annotations": {"k": "v"}}])
        self.assertEqual(len(self.referrers("?" + urllib.parse.urlencode({"artifactType": EMPTY["mediaType"]}))[0]), 1)
        self.expect(202, "DELETE", f"manifests/{digest(one)}")
        self.assertEqual([entry["digest"] for entry in self.referrers()[0]], [digest(two)])

    def test_an_index_refers_too(self):
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": self.subject, "artifactType": "test/index"}).encode()
        put = self.expect(201, "PUT", f"manifests/{digest(index)}", index, Content_Type=INDEX)
        self.assertEqual(put.headers["OCI-Subject"], self.subject["digest"])
        self.assertEqual(self.referrers()[0][0]["artifactType"], "test/index")


def main():
    global URL
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--url")
    options = parser.parse_args()
    if options.url:
        URL = options.url
        return run()
    with tempfile.TemporaryDirectory(prefix="hull-conformance.") as root:
        server = subprocess.Popen([options.bin + "/hull-registry", "--listen", "127.0.0.1:0", "--root", root + "/r"],
                                  stderr=subprocess.PIPE, text=True)
        try:
            for line in server.stderr:
                found = re.search(r"listening on (http://[0-9.:]+)", line)
                if found:
                    URL = found[1]
                    break
            else:
                sys.exit("hull-registry did not start listening")
            with open(os.devnull, "w") as rest:
                drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=rest)
            return run()
        finally:
            server.terminate()
            server.wait()
            drain.wait()


def run():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
