import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from wfc_dist.data.languages import WHISPER_LANGUAGES, language_code


def words(text: str) -> list[str]:
    return text.split()


# ISO 639-1 or Whisper's code, ISO 639-2/T and -3, and 639-2/B where that differs
ISO = """
en eng, zh zho chi, de deu ger, es spa, ru rus, ko kor, fr fra fre, ja jpn, pt por, tr tur, pl pol, ca cat, nl nld
dut, ar ara, sv swe, it ita, id ind, hi hin, fi fin, vi vie, he heb, uk ukr, el ell gre, ms msa may, cs ces cze, ro
ron rum, da dan, hu hun, ta tam, no nor, th tha, ur urd, hr hrv, bg bul, lt lit, la lat, mi mri mao, ml mal, cy cym
wel, sk slk slo, te tel, fa fas per, lv lav, bn ben, sr srp, az aze, sl slv, kn kan, et est, mk mkd mac, br bre, eu
eus baq, is isl ice, hy hye arm, ne nep, mn mon, bs bos, kk kaz, sq sqi alb, sw swa, gl glg, mr mar, pa pan, si sin,
km khm, sn sna, yo yor, so som, af afr, oc oci, ka kat geo, be bel, tg tgk, sd snd, gu guj, am amh, yi yid, lo lao, uz
uzb, fo fao, ht hat, ps pus, tk tuk, nn nno, mt mlt, sa san, lb ltz, my mya bur, bo bod tib, tl tgl, mg mlg, as asm,
tt tat, haw haw, ln lin, ha hau, ba bak, jw jav, su sun, yue yue
"""
CODES = {row.split()[0]: row.split()[1:] for row in ISO.split(",")}
FLEURS = words("""
af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn cs_cz cy_gb da_dk de_de
el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu hy_am id_id
ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd lo_la lt_lt luo_ke
lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr om_et or_in pa_in pl_pl
ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in tg_tj th_th tr_tr uk_ua umb_ao
ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za
""")
COMMON_VOICE = words("""
ab af am an ar as ast az ba bas be bg bn br bxr ca ckb cnh cs cv cy da dag dav de dv dyu el en eo es et eu fa fi fr
fy-NL ga-IE gl gn ha he hi hsb ht hu hy-AM hyw ia id ig is it ja ka kab kbd ki kk kln kmr kn ko ky lb lg lij ln lo lt
ltg luo lv lzh mdf mg mhr mk ml mn mr mrj ms mt my myv nan-tw nb-NO ne nhe nhi nl nn-NO nr nso nv ny oc om or os pa-IN
pap-AW pl ps pt quy rm-sursilv rm-vallader ro ru rw sah sat sc scn sd shi si sk skr sl sn so sq sr ss st su sv-SE sw
syr ta te tg th ti tig tk tl tn to tok tr ts tt tw tyv ug uk ur uz vec ve vi vot wo xh yi yo yue za zgh zh-CN zh-HK
zh-TW zu zza
""")
NOT_IN_WHISPER = words("""
ab an ast bas bxr ceb ckb cnh cv dag dav dv dyu eo ff fy ga gn hsb hyw ia ig kab kam kbd kea ki kln kmr ky lg lij ltg
luo lzh mdf mhr mrj myv nan nhe nhi nr nso nv ny om or os pap quy rm rw sah sat sc scn shi skr ss st syr ti tig tn to
tok ts tw tyv ug umb vec ve vot wo xh za zgh zu zza
""")
"""First subtags in the two lists above."""
OTHER_THAN_FIRST = {"cmn": "zh", "nb": "no", "fil": "tl", "jv": "jw", "zh-HK": "yue"}


def test_the_languages_are_whispers():
    assert list(WHISPER_LANGUAGES) == list(LANGUAGES) == list(CODES)
    assert {code: name.lower() for code, name in WHISPER_LANGUAGES.items()} == LANGUAGES


@pytest.mark.parametrize("code", CODES)
def test_every_language_by_its_codes_name_and_token(code):
    for label in (code, *CODES[code], WHISPER_LANGUAGES[code], f"<|{code}|>"):
        assert {language_code(form) for form in (label, label.upper(), label.title(), f" {label} ")} == {code}


@pytest.mark.parametrize("name", TO_LANGUAGE_CODE)
def test_names_that_whisper_itself_reads(name):
    assert language_code(name) == TO_LANGUAGE_CODE[name]


@pytest.mark.parametrize("label", [*FLEURS, *COMMON_VOICE])
def test_names_of_fleurs_and_common_voice(label):
    first = re.split("[-_]", label)[0]
    wanted = None if first in NOT_IN_WHISPER else OTHER_THAN_FIRST.get(label, OTHER_THAN_FIRST.get(first, first))
    assert wanted is None or wanted in WHISPER_LANGUAGES
    for form in (label, label.lower(), label.replace("_", "-"), label.replace("-", "_")):
        assert language_code(form) == wanted


def test_the_list_of_fleurs_is_whole():
    assert len(set(FLEURS)) == 102 and sum(language_code(name) is not None for name in FLEURS) == 83


@pytest.mark.parametrize(
    ("code", "labels"),
    [
        ("en", "en-US en_us EN_US en-uk en-IN en-029 en-001 en-CA en_ca eng-US en-Latn-US en-GB-oxendict en-US-x-a en_US.UTF-8"),
        ("es", "es-419 es_419 es-MX es-ES es-AR es_ar spa-US es-LA es_la"),
        ("zh", "cmn zho chi zh-CN zh_cn zh-Hans zh-Hant zh-Hans-CN cmn-Hans-CN cmn_hans_cn zh-TW zh-cmn zh-cmn-Hans-CN zh-guoyu"),
        ("yue", "yue yue-HK yue_hant_hk yue-CN zh-HK zh_hk zh-Hant-HK zh-yue zh-yue-HK zh-MO"),
        ("ar", "arb arz aeb ary apc ajp acm afb arq ayl apd ars ar-EG ar_eg ar-SA ar-LB ar-arz arb_Arab arb-Latn shu"),
        ("no", "no nb nob nor nb-NO nb_no no-NO nob_Latn no-bok"),
        ("nn", "nn nno nn-NO nn_no nno_Latn no-nyn"),
        ("he", "he iw heb he-IL iw_IL"),
        ("id", "id in in_ID ind_Latn"),
        ("yi", "yi ji ydd ydd_Hebr"),
        ("jw", "jw jv jav jv_id jv-ID jw-ID"),
        ("tl", "tl fil tgl fil_ph fil-PH tl-PH"),
        ("ro", "ro ro-MD mo mol"),
        ("fa", "fa pes prs fa-AF fa_ir pes_Arab"),
        ("ms", "ms zsm zlm ms-MY ms-ID zsm_Latn"),
        ("sw", "sw swh swc sw-KE swh_Latn"),
        ("sr", "sr sr-Latn-RS sr_cyrl_rs sr-BA srp_Cyrl sr-ekavsk"),
        ("ca", "ca ca-ES ca_es ca-valencia ca-ES-valencia"),
        ("pt", "pt pt-BR pt_br pt-PT por_Latn"),
        ("fr", "fr fr-CA fr_ca fr-BE fr_be fr-SN"),
        ("lv", "lv lvs lvs_Latn"),
        ("sq", "sq als aln als_Latn"),
        ("uz", "uz uzn uzs uzn_Latn uz-Cyrl"),
        ("az", "az azj azb azj_Latn"),
        ("ps", "ps pbt ps_af pbt_Arab"),
        ("mn", "mn khk khk_Cyrl"),
        ("mg", "mg plt plt_Latn"),
        ("ne", "ne npi npi_Deva"),
        ("et", "et ekk et-EE"),
        ("de", "de-AT de_ch de-1996 de-u-co-phonebk"),
    ],
)  # fmt: skip
def test_tags_codes_and_locales(code, labels):
    assert {label: language_code(label) for label in labels.split()} == dict.fromkeys(labels.split(), code)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Mandarin Chinese", "zh"), ("Chinese (China)", "zh"), ("Cantonese Chinese", "yue"), ("Chinese (Hong Kong)", "yue"),
        ("Norwegian Bokm\u00e5l", "no"), ("Bokmal", "no"), ("Norwegian Nynorsk", "nn"), ("NORWEGIAN_NYNORSK", "nn"),
        ("Filipino", "tl"), ("Farsi", "fa"), ("Dari", "fa"), ("Bangla", "bn"), ("Burmese", "my"), ("M\u0101ori", "mi"),
        ("Spanish; Castilian", "es"), ("Greek, Modern (1453-)", "el"), ("Central Khmer", "km"), ("Haitian; Haitian Creole", "ht"),
        ("Egyptian Arabic", "ar"), ("egyptian-arabic", "ar"), ("Brazilian Portuguese", "pt"), ("Latin American Spanish", "es"),
        ("English (United States)", "en"), ("Kiswahili", "sw"), ("Odia", None), ("Irish", None), ("Sorani-Kurdish", None),
        ("Northern-Sotho", None), ("Kyrgyz", None), ("Serbo-Croatian", None), ("Chinese-English", None), ("Min Nan", None),
    ],
)  # fmt: skip
def test_english_names(name, code):
    assert language_code(name) == code


MIXTURES = words("""
mixed mul und zxx mis qaa zh,en zh-en en-zh zh_en zh/en zh+en zh&en zh|en en-es en_es es-en es_en hi-en en_hi ar-fr
fr-ar en-de EN-ES ZH-EN en-en-us
""")
NOT_KNOWN = words("""
xx xyz en-xx en-foo en-US-foo en- -en _ - . * code-switching Hinglish n/a none null nan 1 42 en-x x-en zh-nan nan hak
wuu gan hbs sh tlh c unk <||> <|en <|xx|> en.us
""")


@pytest.mark.parametrize("label", [*MIXTURES, *NOT_KNOWN, "", " ", "zh en", "zh, en", "English and Spanish", "\u4e2d\u82f1"])
def test_no_language_is_guessed(label):
    assert language_code(label) is None


@pytest.mark.parametrize(("label", "code"), [("en-ES", "en"), ("en_ES", "en"), ("de_FR", "de"), ("EN-ES", None), ("en-es", None)])
def test_a_region_that_is_a_languages_code_counts_where_the_letters_say_so(label, code):
    assert language_code(label) == code


@settings(deadline=None)
@given(st.one_of(st.text(), st.from_regex(r"[a-z]{2,3}([-_][a-zA-Z0-9]{1,8}){0,4}", fullmatch=True)))
def test_any_label_gives_a_code_of_whisper_or_none(label):
    assert language_code(label) in {None, *WHISPER_LANGUAGES}


def test_two_million_rows_are_looked_up_in_seconds():
    start = time.process_time()
    for _ in range(20_000):
        language_code("cmn_hans_cn")
    assert time.process_time() - start < 0.2
