"""How the site looks: one sheet in every page, light and dark, from a phone to a wide screen; and the switch between.

Colours come in pairs of equal meaning; the tests compute their contrast (at least 4.5 to 1 for text).
"""

from __future__ import annotations

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
    "ink": "#1b1e22", "faint": "#555b63", "line": "#d5d9de", "ground": "#ffffff", "panel": "#f4f5f7",
    "link": "#0b5394", "good": "#00604a", "bad": "#a02c00", "warn": "#7a5200", "focus": "#0072b2",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "ink": "#e7e9ec", "faint": "#a8afb8", "line": "#3a4047", "ground": "#14161a", "panel": "#1e2126",
    "link": "#8cc4ff", "good": "#63d6b3", "bad": "#ffab82", "warn": "#f0c674", "focus": "#5cb8f0",
}  # fmt: skip


def _vars(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


CSS = f"""
:root{{color-scheme:light;{_vars(LIGHT)}}}
@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{_vars(DARK)}}}}}
:root[data-theme=dark]{{color-scheme:dark;{_vars(DARK)}}}
*{{box-sizing:border-box}}
html{{scroll-padding-top:1rem;-webkit-text-size-adjust:100%}}
body{{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}}
header,main,footer{{max-width:78rem;margin:0 auto;padding:0 clamp(.9rem,3vw,2rem)}}
header{{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;align-items:center;padding-top:.9rem}}
header .home{{font-weight:700;text-decoration:none;color:var(--ink);padding:.3rem 0}}
header nav{{flex:1 1 auto;order:3;width:100%}}
nav ul{{display:flex;flex-wrap:wrap;gap:.15rem .35rem;list-style:none;margin:0;padding:0}}
nav a{{display:block;padding:.32rem .6rem;border-radius:.4rem;text-decoration:none}}
nav a:hover{{background:var(--panel);text-decoration:underline}}
nav a[aria-current]{{background:var(--panel);color:var(--ink);font-weight:600}}
.theme{{margin-left:auto;font:inherit;font-size:.9rem;color:var(--ink);background:var(--panel);cursor:pointer;
border:1px solid var(--faint);border-radius:.4rem;padding:.3rem .7rem;min-height:2.1rem}}
main{{padding-top:.6rem;padding-bottom:3rem}}
footer{{border-top:1px solid var(--line);padding-top:1rem;padding-bottom:2.5rem;color:var(--faint);font-size:.9rem}}
h1{{font-size:clamp(1.45rem,4vw,2rem);line-height:1.2;margin:.8rem 0 .6rem;overflow-wrap:anywhere}}
h2{{font-size:1.3rem;line-height:1.3;margin:2.2rem 0 .5rem;overflow-wrap:anywhere}}
h3{{font-size:1.06rem;margin:1.6rem 0 .4rem;overflow-wrap:anywhere}}
h4,h5,h6{{font-size:1rem;margin:1.2rem 0 .3rem;overflow-wrap:anywhere}}
p,li,dd{{max-width:50rem;overflow-wrap:anywhere}}p{{margin:.5rem 0}}
a{{color:var(--link);text-underline-offset:.16em;text-decoration-thickness:.06em}}
a.num,a.told,a.id{{color:inherit;text-decoration-style:dotted;text-decoration-color:var(--faint)}}
a.num:hover,a.told:hover,a.id:hover{{color:var(--link);text-decoration-style:solid}}
a.num{{font-variant-numeric:tabular-nums}}.unit{{color:var(--faint)}}
a.skip{{position:absolute;left:-999rem;background:var(--panel);padding:.6rem 1rem;z-index:9}}
a.skip:focus{{left:.6rem;top:.6rem}}
:focus-visible{{outline:3px solid var(--focus);outline-offset:2px;border-radius:.15rem}}
code,pre{{font:.88em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}}
code{{overflow-wrap:anywhere}}.hash{{color:var(--faint);font-size:.8em}}
pre{{background:var(--panel);border:1px solid var(--line);border-radius:.4rem;padding:.6rem .8rem;margin:.5rem 0;
white-space:pre-wrap;overflow-wrap:anywhere;max-width:62rem}}
.faint,caption,figcaption,time{{color:var(--faint)}}td time,th .id,td .id{{white-space:nowrap}}
caption,figcaption{{font-size:.9rem}}
.good{{color:var(--good);font-weight:600}}.bad{{color:var(--bad);font-weight:600}}.warn{{color:var(--warn);font-weight:600}}
p .tag{{font-size:.8em;color:var(--faint)}}
p.note{{border-left:.25rem solid var(--faint);background:var(--panel);padding:.5rem .8rem;border-radius:.2rem}}
p.note.bad{{border-color:var(--bad);font-weight:400;color:var(--ink)}}
p.note.warn{{border-color:var(--warn);font-weight:400;color:var(--ink)}}
.scroll{{overflow-x:auto;border:1px solid var(--line);border-radius:.4rem;margin:.7rem 0;width:fit-content;
max-width:100%}}
table{{border-collapse:collapse;font-size:.9rem;min-width:min(100%,36rem);font-variant-numeric:tabular-nums}}
caption{{text-align:left;padding:.5rem .7rem}}
caption span{{position:sticky;left:.7rem;display:inline-block;max-width:calc(100vw - 3.6rem)}}
th,td{{padding:.34rem .7rem;text-align:left;border-top:1px solid var(--line);vertical-align:top;
overflow-wrap:break-word;max-width:34rem}}
thead th{{background:var(--panel);white-space:nowrap}}tbody th{{font-weight:600}}
td.n,th.n{{text-align:right;white-space:nowrap}}td .hash{{word-break:break-all;display:inline-block;min-width:12rem}}
.cards{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr));gap:.8rem;margin:1rem 0}}
.card{{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem}}
.card dt{{color:var(--faint);font-size:.9rem}}.card dd{{margin:0}}
.card .big{{font-size:1.55rem;font-weight:650;line-height:1.3}}.card .small{{font-size:.88rem;color:var(--faint)}}
dl.facts{{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.25rem 1rem;margin:.6rem 0}}
dl.facts dt{{color:var(--faint)}}dl.facts dd{{margin:0;min-width:0}}
figure{{margin:1rem 0}}figure img,figure video{{max-width:100%;height:auto;max-height:46rem;
width:auto;background:#fff;border-radius:.4rem;
display:block;border:1px solid var(--line)}}
details{{margin:.7rem 0;border:1px solid var(--line);border-radius:.4rem;padding:.2rem .9rem}}
summary{{cursor:pointer;padding:.45rem 0;font-weight:600}}
.more{{display:flex;flex-wrap:wrap;gap:.6rem 1.4rem;margin:1rem 0}}
article.row{{border-top:2px solid var(--line);margin-top:2rem}}article.row:target{{border-top-color:var(--focus)}}
article.row:target>h2{{background:var(--panel)}}article.row h2{{margin-top:.8rem}}
article.row td{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.86rem;max-width:none}}
article.row tbody th{{width:1%;white-space:nowrap}}article.row td{{overflow-wrap:anywhere;min-width:12rem}}
@media (max-width:34rem){{dl.facts{{grid-template-columns:1fr;gap:0}}dl.facts dd{{margin:0 0 .5rem}}
th,td{{padding:.3rem .5rem}}thead th,th.n{{white-space:normal}}td:not(.n){{min-width:7.5rem}}
article.row tbody th{{white-space:normal;width:32%;overflow-wrap:anywhere}}}}
@media print{{header nav,.theme,a.skip{{display:none}}.scroll{{overflow:visible}}}}
"""

# The choice is kept where the browser lets a file keep something; where not, it holds for this page.
SCRIPT = """
(function(){var r=document.documentElement,k="lab-report-theme",t=null;
try{t=window.localStorage.getItem(k)}catch(e){}
if(t==="dark"||t==="light"){r.dataset.theme=t}
document.addEventListener("DOMContentLoaded",function(){var b=document.querySelector("button.theme");if(!b){return}
var m=window.matchMedia("(prefers-color-scheme: dark)");
function dark(){return r.dataset.theme?r.dataset.theme==="dark":m.matches}
function say(){b.textContent=dark()?"Light colours":"Dark colours"}
b.addEventListener("click",function(){var n=dark()?"light":"dark";r.dataset.theme=n;
try{window.localStorage.setItem(k,n)}catch(e){}say()});
if(m.addEventListener){m.addEventListener("change",say)}b.hidden=false;say()})})();
"""
