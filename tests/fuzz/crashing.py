"""A file that `tests/fuzz` made up: HDF5 1.14 crashes on reading its attributes (deflated, base 85)."""

import base64
import zlib

_CONTENT = (
    "c-rk)2~<<(625_e5dxx=ic2LbD)O|Y2psG3CZTLDPy`obDTEkkDu%EK)K(f=MO+d^txXj@U>8&RtcbM&ZaH8pu7o9sfnrz^5&}v4"
    "9s*B!<|X7$3E0|m`c9wiIrlqf&g7q&f9}lO`R|?F-9df<b~aOOFat;=jEFg4=FlN{%pbkRR`}7@>eq3|j(~U`;zA3P+-g|ojN}f;"
    "zhInkZQ8#!%-`Q&ts4VV93Dg?Ct-gW&IAv{uh}R00>km=Ly$i$)W9Q5Ys9N9M%$&a*vW~h^ev_}Jw2Vt-bznrC9`7_=#2E_)U;uF"
    "Je{#QF*SKBdlRx_Cnhn|M*7$R8{NMq1p!-Z<d#N(>GIZylM(+lxuyOj7<NvixM0SXreKpv*yQ(--b&x$2EB!a1;N<w#*?GJ9BO^)"
    "n2g{0zut%NkT?7Y`pBs!!Nh0Vo6dcf)wAt9OwSMNXWN<1KgIH|-OqnqUjeES74x#iymXeo)mK#GvmfIUpJ!h^T@N=SH-`IEzP}^?"
    "3$&TRNrg}4FS7sTbCva6`@{5}beJ^yJxN9<kD&kcf<B9Q7CSbLLuatqiN@pjEBO;fd#8^4E}`kydJ^iXT2Ep<l_8!-GwOwi8{~0%"
    "DnukhIs+Zh6IV|nwAZi}Aen)OB7a;nox#VCXip)M#i9L$$X<Z_mmxbDiqqf&^EKLt(LPfSd5901$pna~NUt=DQ$!o_lZUQh@>ymU"
    "1IH{bQ(X)(6e3+H+Si1LYL<(seuc<RWR^#vS=~j54w%)%RQGBmYeF#y$Jmu1osc#XlgO-oLZmN4x&x>V=C)ijTdvtXjzjjQ7^uT?"
    "VmNi~saP${a@FPK2G;@q>vwX!|J?>zJ$sAqab>`S{7TW;CMX@?+ok5K;QM2HsvpY~&{|Y*rTmc+wnw)3d)U-MT)A*nU`s1Fd{cF3"
    ";rR{_hdX`!FsuzYI$lal<sH~%liAgGu@N$cmKA^du?7-)tOHNFNFbj48OHMIfyLh3ucA`b&?kyxRKG2Qg3_a}ez>t6A|nUK9nMyR"
    "oA4!GM12>W@UkD;RIi4}$8YlEZ>gZO-6{Kmvl6^YXJ0S=t{1q{dFQTXs6mmjcw5bY1hOsoTl#q_sO(_a|7%$-Q0m(YRtC307=>BD"
    "<I8|L>6Iwq+<U-zv~+?!O9L^rg8lZVYN2@5R^s@nH=*LoAs@!NAK=OjkxxXG7Mk{5^Ye+6LQv(U>6~IUtX7wPFZoge#3|0Cl`J{5"
    "25w7XYc(({EqbQw6(u+iIn~g(T1eP1k1L)ghr2rl0;&&c;Rw%m#iRx`M61GmE5f?LbL(_R?>W7|$&p0;bU*<gvzOeuZ2JH*PM!DV"
    "^>o0xTu;j*%qB>6su-Le(hV`vWjwnNBoGo-_k+tqIZTq13o>VPf@|<psQ#o2C|lUChPSHV9}fAX^+|P*F{fywWr7029A{91butL3"
    "TK9I5ivkqm9ev+-SHi>ai*phfa>(9wcu~rH73}=(G=cN2{yx4dEV~cwu%U7%XZO3!Fr?Y;vp%m0T9xFgnTwRr_szl>v9}VK6%xO3"
    "HI4A%!QIx$fm*N$J-T0dxC`FfHO~FIt^?c)mFX0%8me6x%Uh)FFxY>H!TYEkvR<3hW@jyh<*OX_tiII%@%2}ZJDyNN^|8}OV=Q`L"
    "#|kw$Nz?^S<7sKcGY_ET%%vM?v*i%s>wEfoT_?=Q2-z1Hr-A6&k8V#0mqE7QOGTe9lK}tzd|~GO9^l8EEuS3H3vsqdxzas%K^uNG"
    "p#PtZ5MoodWMhc};(NRL76`iG$)oO_n>BKn5Jbt;9czR@?Y1OQT^%@ms5`zPvI9zPTGsalsG-z<AM+>GJ?P>2tvvj>7;b;jx4j~#"
    "6Qt8v5kn^$q5DC}>$|C9*mg5^#zfC<XviP5+?1q-;~{N)jX(ze$4kQ2G&h4lwbbi{|46}~y|>#X=mD%-lOSIFH#t}>y|#C!ssm&-"
    "ZnxM^S|RJ5=!iQP6p(%G3~BngE;#u?C3*JQPB`dwH|0>M4DxO?9Q2M=K;4U^_p*6%*i*iGLH28{&=<u$)E(9WY*!a2tJqGUsY;_$"
    "92Kxb5It+{cm=q>?4gTUB!eQmzvs}}JK?r-^IMlsYJqTU2b~+$2A-Z_%$Falp+$4PzPw)yS(k}dSKaLa;-wU~fgBAC2A?RJ>MaF#"
    ">gM`}#+wjbv!2{k)egjk<iyYCHA1dSwyRTs78<<L()sjWSYkW3$mfX$lBVV4tDEIe7wF~4Khgo{B}T<L&VLVodhRsNg#^OrxzqZ8"
    "p0lwjqyOn(W4@UDIWQ5;onyb_jLe-@!*eG+i#hy9ddkIf!#f;)E+J{uylEJ&J*NE942lB>4jedeJb!$~S#ERhQyCcfkI?THy}$C|"
    "AX;P8JGTuWQUhOqV>Q9-1F`vg&Hzploy}a3!D41Eh-a}!{EH{xHO7Gh2M!!KaNxj!0|yQqIQ}a5FCQUPtN"
)


def crashing_hdf5() -> bytes:
    """Its bytes."""
    return zlib.decompress(base64.b85decode(_CONTENT))
